#!/bin/bash
#SBATCH --job-name=train --ntasks=4
# Each task is metered where it runs, and all of them are one job: with job_submit.lua and without.
srun jobmeter run --kind training -- python3 train.py
