#!/bin/sh
# GNU parallel: a sweep is one job, each of its runs a task of it. The first run that ends with a status other than 0, such as 75
# (credits exhausted), keeps the rest from starting; `parallel --resume-failed` with the same --joblog goes on another day.
sweep=${SWEEP:-sweep-$(date +%s)-$$}
exec parallel --jobs "${JOBS:-50%}" --halt soon,fail=1 --joblog "$sweep.joblog" \
  jobmeter run --quiet --job "$sweep" --task '{#}' --label 'rate={}' -- python3 train.py '{}' ::: "$@"
