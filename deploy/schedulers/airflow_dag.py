"""Airflow: each try of a task is an attempt of one job, so a run of the DAG shows as one job with its tasks. The key of the worker
that holds JOBMETER_KEY must have the scope `report` for all accounts, since the DAG's owner is charged. (For Airflow 3.)"""

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

METERED = (
    "jobmeter run --user '{{ task.owner }}' --job '{{ dag.dag_id }}.{{ run_id }}' --task '{{ ti.task_id }}' --name '{{ dag.dag_id }}' -- "
)

with DAG("train", schedule=None, default_args={"owner": "ann"}):
    BashOperator(
        task_id="fit",
        # exec, so that Airflow's SIGTERM to the task reaches jobmeter and not a shell.
        bash_command="exec " + METERED + "python3 /srv/train.py",
        # Status 75 says that credits are exhausted: later they are back.
        retries=3,
        retry_delay=timedelta(hours=8),
    )
