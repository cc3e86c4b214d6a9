"""The files of deploy/schedule: each is read by what it is for, and its commands by our own command line."""

import ast
import re
import shlex
import shutil
import subprocess
from collections import Counter

import pytest
import yaml

from pipeline.command_line import make_parser
from pipeline.commands import embed_options
from tests.conftest import REPOSITORY
from transforms.errors import INTERRUPTED, EncoderError, RunHeldError, SorbusError

FOLDER = REPOSITORY / "deploy/schedule"
SERVICE, TIMER = FOLDER / "sorbus-embed.service", FOLDER / "sorbus-embed.timer"
FAILED, REFUSED, HELD = SorbusError.exit_code, EncoderError.exit_code, RunHeldError.exit_code


def unit(path):
  """{section: [(key, value)]} of a unit file: a key may stand several times, and a line go on."""
  sections, section = {}, None
  for line in path.read_text().replace("\\\n", " ").splitlines():
    if match := re.fullmatch(r"\[(\w+)\]", line):
      section = sections.setdefault(match[1], [])
    elif line and not line.startswith("#"):
      key, _, value = line.partition("=")
      section.append((key, value))
  return sections


def service(key):
  return [value for name, value in unit(SERVICE)["Service"] if name == key]


def cron_line():
  """(the five fields, the user, the command) of the one job."""
  lines = [line for line in (FOLDER / "sorbus.cron").read_text().splitlines() if line and not line.startswith("#")]
  [job] = [line for line in lines if not re.match(r"[A-Z]+=", line)]
  *fields, user, command = job.split(maxsplit=6)
  return fields, user, command


def job_spec():
  return yaml.safe_load((FOLDER / "cronjob.yaml").read_text())["spec"]["jobTemplate"]["spec"]


def dag_value(name):
  """A constant of the DAG, read without Airflow."""
  tree = ast.parse((FOLDER / "airflow_dag.py").read_text())
  [value] = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == name]
  return eval(compile(ast.Expression(value), "dag", "eval"))


def commands_of_cron():
  return [shlex.split(words) for words in re.findall(r"/opt/sorbus/bin/sorbus .*?(?= && |; })", cron_line()[2])]


def commands_of_kubernetes():
  [container] = job_spec()["template"]["spec"]["containers"]
  return [[*container["command"], *container["args"]]]


COMMANDS = {
  "sorbus-embed.service": lambda: [shlex.split(line) for line in service("ExecStart")],
  "sorbus.cron": commands_of_cron,
  "cronjob.yaml": commands_of_kubernetes,
  "airflow_dag.py": lambda: [dag_value("COMMAND"), dag_value("GC")],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_schedule_is_one_of_ours(name):
  parsed = []
  for program, *words in COMMANDS[name]():
    assert program.rpartition("/")[2] == "sorbus"
    parsed.append(make_parser().parse_args(words))  # raises for one that there is not
  embed, *others = parsed
  embed.beam_options = ()
  options = embed_options(embed)
  assert embed.command == "embed" and [other.command for other in others] in (["gc"], [])
  assert all(other.dataset == options.dataset for other in others)
  assert embed.metrics_file.endswith(".prom")  # or the collector passes it by
  assert options.read.id_column == "id" and not options.again
  assert options.wait == (name == "sorbus.cron")  # the one that does not try again by itself


def test_every_file_of_the_folder_is_known_here():
  assert {path.name for path in FOLDER.iterdir() if path.is_file()} == {*COMMANDS, TIMER.name}


def test_all_schedules_are_of_the_same_hour():
  assert dict(unit(TIMER)["Timer"])["OnCalendar"] == "*-*-* 03:30:00"
  cron = yaml.safe_load((FOLDER / "cronjob.yaml").read_text())["spec"]["schedule"]
  assert " ".join(cron_line()[0]) == cron == dag_value("SCHEDULE") == "30 3 * * *"


# --- systemd


def test_systemd_takes_the_units(tmp_path):
  if not shutil.which("systemd-analyze"):
    pytest.skip("needs systemd-analyze, which is not on this machine")
  for path in (SERVICE, TIMER):  # the program and its user are not here
    text = path.read_text().replace("/opt/sorbus/bin/sorbus", "/bin/true").replace("User=sorbus", "User=root")
    (tmp_path / path.name).write_text(text)
  units = [str(tmp_path / path.name) for path in (SERVICE, TIMER)]
  done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
  ours = [line for line in done.stderr.splitlines() if "sorbus-embed" in line]  # others are of this machine's units
  assert (done.returncode, ours) == (0, []), done.stderr


def test_systemd_restarts_by_exit_code():
  given = {key: service(key) for key in ("Type", "Restart", "RestartPreventExitStatus", "SuccessExitStatus")}
  assert given == {
    "Type": ["oneshot"],
    "Restart": ["on-failure"],  # that is, but for these: 75, and what was killed
    "RestartPreventExitStatus": [f"{FAILED} {REFUSED}"],
    "SuccessExitStatus": [str(INTERRUPTED)],
  }
  counted = Counter(key for section in unit(SERVICE).values() for key, _ in section)
  assert {key for key, n in counted.items() if n > 1} == {"ExecStart"}


def test_systemd_may_write_where_the_command_writes():
  embed = make_parser().parse_args(shlex.split(service("ExecStart")[0])[1:])
  folders = [f"/var/lib/{name}" for name in service("StateDirectory")[0].split()]
  assert service("ProtectSystem") == ["strict"]
  assert embed.dataset.rpartition("/")[0] in folders and embed.metrics_file.rpartition("/")[0] in folders


# --- cron


def test_cron_takes_the_line():
  fields, user, command = cron_line()
  ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
  for entry, (least, most) in zip(fields, ranges, strict=True):
    assert entry == "*" or least <= int(entry) <= most
  assert user == "sorbus"
  assert not re.search(r"(?<!\\)%", command)  # to cron a line break
  assert len(command) < 990  # of Vixie cron's MAX_COMMAND, less a little
  assert subprocess.run(["sh", "-n", "-c", command]).returncode == 0


@pytest.mark.parametrize(("embed", "gc", "mailed"), [(0, 0, False), (1, 0, True), (75, 0, True), (0, 1, True)])
def test_cron_mails_of_a_bad_night_only(tmp_path, embed, gc, mailed):
  (tmp_path / "sorbus").write_text(f'#!/bin/sh\necho "$1 ran"\n[ "$1" = gc ] && exit {gc}\nexit {embed}\n')
  (tmp_path / "sorbus").chmod(0o755)
  command = cron_line()[2].replace("/opt/sorbus/bin", str(tmp_path)).replace("/var/log/sorbus", str(tmp_path))
  done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
  assert (done.stdout != "", done.stderr) == (mailed, "")
  assert (tmp_path / "embed.log").read_text() == ("embed ran\n" if embed else "embed ran\ngc ran\n")


# --- Kubernetes


def test_kubernetes_takes_the_cron_job():
  validate = pytest.importorskip(
    "kubernetes_validate", reason="needs kubernetes-validate, which has Kubernetes' own schemas (requirements-dev.txt)"
  )
  for version in ("1.31", "1.34"):
    validate.validate(yaml.safe_load((FOLDER / "cronjob.yaml").read_text()), version, strict=True)


def test_kubernetes_tries_again_by_exit_code():
  spec = job_spec()
  pod = spec["template"]["spec"]
  [container] = pod["containers"]
  rules = [rule for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
  by_action = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules}
  assert by_action == {"FailJob": [FAILED, REFUSED], "Count": [HELD]}
  assert {rule["onExitCodes"]["containerName"] for rule in rules} == {container["name"]}
  assert pod["restartPolicy"] == "Never"  # without which a podFailurePolicy is refused
  # The waits double from 10 s: a dead job's silence of 300 s has to be over before the last try.
  assert sum(10 * 2**n for n in range(spec["backoffLimit"] - 1)) > 300


def test_kubernetes_mounts_what_the_command_names():
  [container] = job_spec()["template"]["spec"]["containers"]
  args = make_parser().parse_args(container["args"])
  mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
  assert mounts == {"/corpus": True, "/encoder": True, "/data": False, "/tmp": False}
  assert (args.input, args.encoder) == (["/corpus"], "/encoder")
  assert args.dataset.startswith("/data/") and args.metrics_file.startswith("/data/")
  assert container["securityContext"]["readOnlyRootFilesystem"] is True
  volumes = {volume["name"] for volume in job_spec()["template"]["spec"]["volumes"]}
  assert volumes == {mount["name"] for mount in container["volumeMounts"]}
  assert 2 * args.memory_budget <= 16 * 2**30 and container["resources"]["limits"] == {"memory": "16Gi"}
  assert str(args.threads) == container["resources"]["requests"]["cpu"]
