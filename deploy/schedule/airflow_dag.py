"""The night's job for Airflow 3: copy this file into the folder of DAGs, and change COMMAND, GC and SCHEDULE.

Sorbus is in an environment of its own, which Airflow's packages could not share; the DAG needs only its command, on the
machine where the task runs. The log of the task ends with the line `sorbus embed status=…`.
"""

import datetime

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

# No --wait: a task that waits holds a slot; it is tried again instead.
COMMAND = [
  *("/opt/sorbus/bin/sorbus", "embed", "--input", "/srv/corpus", "--id-column", "id", "--encoder", "/srv/encoder"),
  *("--dataset", "/var/lib/sorbus/vectors", "--metrics-file", "/var/lib/sorbus/metrics/vectors.prom"),
]
GC = ["/opt/sorbus/bin/sorbus", "gc", "/var/lib/sorbus/vectors"]
SCHEDULE = "30 3 * * *"  # after the corpus is delivered; UTC

# 1: failed, or held back by a gate. 2: the command, the input or the encoder cannot be right. Neither gets better by
# itself. 75 (another job holds the dataset), 130 (interrupted) and a death by signal do, and what was encoded is kept.
NOT_AGAIN = (1, 2)


class SorbusOperator(BaseOperator):
  """Runs a command of sorbus, and takes its exit code for what it says: BashOperator tries all of them again."""

  def __init__(self, *, command: list[str], **kwargs):
    super().__init__(**kwargs)
    self.command = command
    self.hook = SubprocessHook()

  def execute(self, context) -> None:
    """Raises AirflowFailException where trying again is of no use, AirflowException where it is."""
    code = self.hook.run_command(self.command).exit_code
    if code in NOT_AGAIN:
      raise AirflowFailException(f"exit code {code}: a person has to look; see the log's last lines")
    if code:
      raise AirflowException(f"exit code {code}: tried again")

  def on_kill(self) -> None:
    """Interrupts the job where its task is stopped: else it would go on by itself, and hold the dataset."""
    self.hook.send_sigterm()


with DAG(
  "sorbus_embed",
  description="Sorbus: encode what is new in the corpus, and publish",
  schedule=SCHEDULE,
  start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
  catchup=False,  # a night takes the input as it is now: there are no earlier nights to make up for
  max_active_runs=1,  # a second would find the dataset held
  dagrun_timeout=datetime.timedelta(hours=20),  # a job that hangs must not take the next night with it
  default_args={
    # Every ten minutes for eight hours: so long another job may hold the dataset.
    "retries": 48,
    "retry_delay": datetime.timedelta(minutes=10),
  },
) as dag:
  # Only after exit 0: what old runs leave is removed when there is a new one.
  SorbusOperator(task_id="embed", command=COMMAND) >> SorbusOperator(task_id="gc", command=GC)
