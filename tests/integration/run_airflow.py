"""`python run_airflow.py DAG_FILE`, in Airflow's own environment: loads it as Airflow does, and prints it as JSON."""

import json
import sys
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag

bag = DagBag(sys.argv[1])
dag = bag.dags.get("sorbus_embed")
module = sys.modules[type(dag.get_task("embed")).__module__] if dag else None


def raised_at(code):
  """What the operator raises for a command that ends with this exit code, or is killed by that signal if negative."""
  script = f"exit {code}" if code >= 0 else f"kill {code} $$"
  task = module.SorbusOperator(task_id=f"code{code}".replace("-", "_"), command=["sh", "-c", script])
  try:
    task.execute({})
  except Exception as error:
    return type(error).__name__
  return None


found = {"errors": {Path(path).name: error for path, error in bag.import_errors.items()}}
if dag:
  found |= {
    "tasks": {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks},
    "retries": {task.task_id: task.retries for task in dag.tasks},
    "schedule": dag.schedule,
    "catchup": dag.catchup,
    "max_active_runs": dag.max_active_runs,
    "raised": {code: raised_at(code) for code in (0, 1, 2, 75, 130, -9)},
  }
print(json.dumps(found))
