"""The files of deploy/flink agree with each other, and with what the Flink operator publishes."""

import hashlib
import re
import shutil
import subprocess
import zipfile

import jsonschema
import pytest
import yaml

from pipeline.engines import choose_engine
from tests.engines.conftest import VERSIONS
from tests.engines.flink_cluster import SCRIPTS

CONFIG = yaml.safe_load((SCRIPTS / "config.yaml").read_text())
DEPLOYMENT = yaml.safe_load((SCRIPTS / "flinkdeployment.yaml").read_text())
OPERATOR = ("org.apache.flink:flink-kubernetes-operator-api", "1.10.0")  # the newest that Maven Central gave here
OPERATOR_SHA256 = "b1f44814e17514fa8395c61b329a3ee9087123a5bda5b21fe1a495d5182c30b6"
OF_A_POD = {"io.tmp.dirs", "rest.server.max-content-length"}
MEMORY = {
  "jobmanager.memory.process.size": DEPLOYMENT["spec"]["jobManager"]["resource"]["memory"],
  "taskmanager.memory.process.size": DEPLOYMENT["spec"]["taskManager"]["resource"]["memory"],
}


def _as_text(value):
  return str(value).lower() if isinstance(value, bool) else str(value)


def test_kubernetes_is_given_what_the_local_cluster_is():
  given = {**DEPLOYMENT["spec"]["flinkConfiguration"], **MEMORY}
  expected = {key: _as_text(value) for key, value in CONFIG.items()}
  assert {key: value for key, value in given.items() if key not in OF_A_POD} == expected


def test_every_value_of_the_configuration_has_its_reason():
  text = (SCRIPTS / "config.yaml").read_text()
  groups = [group for group in text.split("\n\n")[1:] if re.search(r"^\w", group, re.MULTILINE)]
  assert groups and all(group.startswith("# ") for group in groups)


def test_a_lost_task_manager_leaves_slots_enough():
  slots, parallelism = CONFIG["taskmanager.numberOfTaskSlots"], CONFIG["parallelism.default"]
  assert slots * (DEPLOYMENT["spec"]["taskManager"]["replicas"] - 1) >= parallelism
  assert "--parallelism=2" in (SCRIPTS / "submit.sh").read_text()


def test_a_retry_waits_until_a_lost_task_managers_slots_are_gone():
  seconds = {
    key: int(re.match(r"\d+(?= s)", str(CONFIG[key]))[0]) for key in CONFIG if re.search(r"\d s$", str(CONFIG[key]))
  }
  # After two failed heartbeats; measured by test_flink_cluster.py.
  assert seconds["restart-strategy.fixed-delay.delay"] > 2 * seconds["heartbeat.interval"]


def test_a_cluster_with_another_configuration_is_told_the_same():
  engine = choose_engine(("--flink_master=flink:8081", "--parallelism=2"), runner="FlinkRunner")
  given = engine.beam_options.get_all_options(retain_unknown_options=True)
  assert int(given["number_of_execution_retries"]) == CONFIG["restart-strategy.fixed-delay.attempts"]
  assert f"{int(given['execution_retry_delay']) // 1000} s" == CONFIG["restart-strategy.fixed-delay.delay"]


def test_the_sidecar_is_where_the_runner_looks():
  (pool,) = [c for c in _containers() if c["name"] == "worker-pool"]
  assert (pool["args"], pool["ports"]) == (["--worker_pool"], [{"containerPort": 50000}])
  volumes = {volume["name"] for volume in DEPLOYMENT["spec"]["taskManager"]["podTemplate"]["spec"]["volumes"]}
  assert {mount["name"] for c in _containers() for mount in c["volumeMounts"]} == volumes


def _containers():
  return DEPLOYMENT["spec"]["taskManager"]["podTemplate"]["spec"]["containers"]


def test_image_and_pins_are_of_one_version():
  (pinned,) = set(re.findall(r"==(\S+)", (SCRIPTS / "flink-2.2.txt").read_text()))
  assert DEPLOYMENT["spec"]["image"] == f"flink:{pinned}-java17"
  assert DEPLOYMENT["spec"]["flinkVersion"] == f"v{pinned.rpartition('.')[0].replace('.', '_')}"


def test_the_deployment_fits_the_operators_schema(tmp_path):
  schema = _closed(_operator_schema(tmp_path)["properties"]["spec"])
  schema["properties"]["flinkVersion"]["enum"].append("v2_2")  # this operator is older; later ones have it
  jsonschema.validate(DEPLOYMENT["spec"], schema)
  with pytest.raises(jsonschema.ValidationError, match="replica"):
    jsonschema.validate({**DEPLOYMENT["spec"], "taskManager": {"replica": 2}}, schema)


def _operator_schema(folder):
  """The schema of a FlinkDeployment, from the operator's own package, its sha256 checked."""
  if not VERSIONS:
    pytest.skip("needs a download: make test-flink")
  if not shutil.which("mvn"):
    pytest.skip("needs Maven for the operator's schema, and there is no mvn")
  argv = ["mvn", "-B", "-q", "-C", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"]
  argv += [f"-Dartifact={':'.join(OPERATOR)}", f"-DoutputDirectory={folder}"]
  if subprocess.run(argv, capture_output=True).returncode:
    pytest.skip(f"needs {':'.join(OPERATOR)}, which Maven Central does not give here")
  (jar,) = folder.glob("*.jar")
  assert hashlib.sha256(jar.read_bytes()).hexdigest() == OPERATOR_SHA256
  with zipfile.ZipFile(jar) as archive:
    crd = yaml.safe_load(archive.read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"))
  return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def _closed(schema):
  """The schema with every unknown name an error: Kubernetes itself would drop it in silence."""
  if isinstance(schema, dict):
    schema = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
      schema["additionalProperties"] = False
  return schema
