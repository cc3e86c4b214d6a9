"""The flex template and the scripts of deploy/dataflow, with gcloud, docker and Google's launcher stood in for."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf import json_format

from pipeline.command_line import make_parser
from pipeline.commands import embed_options
from pipeline.engines import choose_engine
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "deploy/dataflow"
METADATA = json.loads((FOLDER / "metadata.json").read_text(encoding="utf-8"))
PARAMETERS = {parameter["name"]: parameter for parameter in METADATA["parameters"]}
# What each may be, and may not.
EXAMPLES = {
  "input": ("s3://b/*.jsonl,gs://b/2024/", "articles/*.jsonl"),
  "encoder": ("gs://b/encoder", "encoder"),
  "dataset": ("s3://b/vectors", "/vectors"),
  "sdk_container_image": ("europe-docker.pkg.dev/p/sorbus/worker:0.1.0", "worker"),
  "max_num_workers": ("5", "0"),
  "format": ("jsonl", "json"),
  "encoding": ("utf-8", "utf 8"),
  "limit": ("100", "0"),
  "long_texts": ("chunks", "chunk"),
  "stride": ("100", "0"),
  "n_components": ("0.95", "K"),
  "buckets": ("256", "-1"),
  "threads": ("8", "all"),
  "token_budget": ("4096", "4k"),
  "flush_seconds": ("30.5", "1m"),
  "number_of_worker_harness_threads": ("16", "0"),
  "disk_size_gb": ("100", "100GB"),
  **dict.fromkeys(("threshold", "refit_above", "max_rejected", "max_shrink", "max_broken"), ("2.5%", "few")),
  **dict.fromkeys(("no_header", "allow_bad_files", "new_encoder", "again"), ("true", "yes")),
  "id_column": ("id", None),
  "text_column": ("title,body", None),
  "keep_columns": ("title,url", None),
  "whitening": ("reuse", None),
}
# What Google's launcher adds, by the logs of launches that others have published.
GOOGLES = [
  "--runner=DataflowRunner",
  "--project=a-project",
  "--region=europe-west1",
  "--job_name=sorbus-20240229-020000",
  "--temp_location=gs://bucket/temp",
  "--staging_location=gs://bucket/temp",
  "--template_location=gs://bucket/temp/template_launches/2024-02-29_02_00_00-1/job_object",
  '--labels={\n   "goog-dataflow-provided-template-type" : "flex"\n}\n',
]


@pytest.fixture(scope="module")
def embed_arguments():
  return runpy.run_path(str(FOLDER / "launch.py"))["embed_arguments"]


def parsed(argv):
  """The options and the engine that a command line stands for."""
  args = make_parser().parse_args(argv[: argv.index("--")])
  args.beam_options = tuple(argv[argv.index("--") + 1 :])
  options = embed_options(args)
  return options, choose_engine(options.beam_options, runner=options.runner, threads=options.threads)


def test_the_metadata_is_what_google_takes():
  """By the messages of Google's own client: no key, type or value that they do not know."""
  templates = pytest.importorskip("google.cloud.dataflow", reason="needs google-cloud-dataflow-client, not installed")
  message = json_format.ParseDict(METADATA, templates.TemplateMetadata.pb()())  # raises on what it does not know
  assert message.name == "Sorbus" and len(message.parameters) == len(PARAMETERS)


def test_the_metadata_keeps_the_rules_of_the_page():
  """cloud.google.com/dataflow/docs/guides/templates/configuring-flex-templates, "Metadata parameters"."""
  assert METADATA["name"] and METADATA["description"]
  assert len(PARAMETERS) == len(METADATA["parameters"])  # no name twice
  for name, parameter in PARAMETERS.items():
    assert re.fullmatch("[a-z][a-z_]*", name)
    assert parameter["label"] and parameter["helpText"].endswith("."), name
    for regex in parameter.get("regexes", ()):
      assert not re.search(r"\\|\(\?", regex), "POSIX egrep has no classes with a backslash, and no look-ahead"
      assert regex.startswith("^") and regex.endswith("$"), name
  required = {name for name, parameter in PARAMETERS.items() if not parameter.get("isOptional")}
  assert required == {"input", "encoder", "dataset", "sdk_container_image", "max_num_workers"}


def test_regexes_take_what_is_right_and_nothing_else():
  assert EXAMPLES.keys() == PARAMETERS.keys()
  for name, (right, wrong) in EXAMPLES.items():
    regexes = PARAMETERS[name].get("regexes", [])
    assert all(re.search(regex, right) for regex in regexes), name
    assert (wrong is None) == (not regexes), name
    assert wrong is None or not all(re.search(regex, wrong) for regex in regexes), name


def test_every_parameter_becomes_an_option(embed_arguments):
  given = [f"--{name}={right}" for name, (right, _) in EXAMPLES.items()]
  options, engine = parsed(embed_arguments([*given, *GOOGLES]))
  assert options.inputs == ("s3://b/*.jsonl", "gs://b/2024/")
  assert (options.encoder, options.dataset) == ("gs://b/encoder", "s3://b/vectors")
  assert (options.read.text_columns, options.read.keep_columns) == (("title", "body"), ("title", "url"))
  assert (options.read.id_column, options.read.header, options.read.allow_bad_files) == ("id", False, True)
  assert (options.again, options.new_encoder, options.limit, options.max_broken) == (True, True, 100, 0.025)
  assert (options.long_texts, options.stride) == ("chunks", 100)
  assert (options.n_components, options.detach, options.runner) == (0.95, True, "DataflowRunner")
  found = engine.beam_options.get_all_options()
  assert found["template_location"].endswith("/job_object")
  assert (found["number_of_worker_harness_threads"], found["disk_size_gb"]) == (16, 100)
  assert found["sdk_container_image"] == "europe-docker.pkg.dev/p/sorbus/worker:0.1.0"
  assert engine.parallelism == 5 * 16


def test_every_parameter_is_an_option_of_ours_or_of_beams():
  """A name that neither knows would go to Beam, and be refused there only when a job is launched."""
  known = vars(make_parser().parse_args(["embed"])).keys() | PipelineOptions([]).get_all_options().keys()
  assert PARAMETERS.keys() <= known


def test_a_flag_is_true_or_false(embed_arguments):
  assert "--again" not in embed_arguments(["--again=false"])
  with pytest.raises(SystemExit, match=r"^again=yes: choose true or false$"):
    embed_arguments(["--again=yes"])


def test_no_value_becomes_a_flag(embed_arguments):
  assert "--id-column=--again" in embed_arguments(["--id_column=--again", "--encoder=--"])
  with pytest.raises(SystemExit, match=r"^text_column=text,--no-header: begins with a dash, as flags do; "):
    embed_arguments(["--text_column=text,--no-header"])


def test_the_launcher_as_google_calls_it(tmp_path):
  """The file itself, in a process of its own, as far as it comes without a cluster; test_dataflow.py goes further."""
  given = ["--input=s3://b/x", "--encoder=s3://b/e", f"--dataset={tmp_path}/dataset", "--runner=FnApiRunner"]
  environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
  done = subprocess.run([sys.executable, FOLDER / "launch.py", *given], env=environment, capture_output=True, text=True)
  assert done.returncode == 2
  assert "\nsorbus: error: --detach without --runner: here the run is this process" in done.stderr


@pytest.fixture
def tools(tmp_path):
  """A PATH on which sorbus, gcloud and docker write down what they are called with."""
  for name in ("sorbus", "gcloud", "docker"):
    tool = tmp_path / "bin" / name
    tool.parent.mkdir(exist_ok=True)
    tool.write_text('#!/usr/bin/env bash\nprintf "%q " "$(basename "$0")" "$@" >>"$CALLS"; echo >>"$CALLS"\n')
    tool.chmod(0o755)
  return tmp_path


def calls(tools, script, *arguments, **variables):
  """What a script calls, word by word; `variables` are all that it has beside PATH."""
  path = {"PATH": f"{tools}/bin:{os.environ['PATH']}", "CALLS": f"{tools}/calls"}
  done = subprocess.run(["bash", FOLDER / script, *arguments], env=path | variables, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return [shlex.split(line) for line in (tools / "calls").read_text().splitlines()]


PLACE = {"PROJECT": "a-project", "REGION": "europe-west1", "TEMP": "gs://bucket/temp", "IMAGE": "registry/worker:0.1.0"}
WHERE = ["--input", "s3://b/a b.jsonl", "--encoder", "s3://b/e", "--dataset", "s3://b/d"]


def test_submit_gives_a_command_that_ours_and_beams_parsers_take(tools):
  more = {"SERVICE_ACCOUNT": "sorbus@a-project.iam.gserviceaccount.com", "SUBNETWORK": "regions/r/subnetworks/s"}
  (call,) = calls(tools, "submit.sh", *WHERE, "--detach", "--", "--max_num_workers=7", MAX_WORKERS="5", **PLACE, **more)
  options, engine = parsed(call[1:])
  assert options.inputs == ("s3://b/a b.jsonl",) and options.detach
  found = engine.beam_options.get_all_options()
  assert (found["project"], found["region"], found["max_num_workers"]) == ("a-project", "europe-west1", 7)
  assert (found["use_public_ips"], found["subnetwork"]) == (False, "regions/r/subnetworks/s")
  assert re.fullmatch(r"sorbus-\d{8}-\d{6}", found["job_name"])


@pytest.mark.parametrize("missing", ["PROJECT", "REGION", "TEMP", "IMAGE", "MAX_WORKERS"])
def test_submit_says_what_it_needs(tools, missing):
  given = {name: value for name, value in {**PLACE, "MAX_WORKERS": "5"}.items() if name != missing}
  with pytest.raises(AssertionError, match=f"{missing}: .+"):
    calls(tools, "submit.sh", *WHERE, **given)


def test_a_launch_hands_its_parameters_over(tools, embed_arguments):
  given = ["input=s3://b/1/,s3://b/2/", "encoder=s3://b/e", "dataset=s3://b/d"]
  (call,) = calls(tools, "flex_template.sh", "run", *given, TEMPLATE="gs://b/t.json", MAX_WORKERS="5", **PLACE)
  assert call[:4] == ["gcloud", "dataflow", "flex-template", "run"]
  parameters = call[call.index("--parameters") + 1]
  assert parameters.startswith("^~^")
  options, engine = parsed(embed_arguments([f"--{p}" for p in parameters[3:].split("~")] + GOOGLES))
  assert options.inputs == ("s3://b/1/", "s3://b/2/")
  assert engine.beam_options.get_all_options()["sdk_container_image"] == "registry/worker:0.1.0"


def test_a_parameter_is_one_parameter(tools):
  with pytest.raises(
    AssertionError, match="input=s3://b/~again=true: has a ~ in it, by which parameters are told apart"
  ):
    calls(
      tools, "flex_template.sh", "run", "input=s3://b/~again=true", TEMPLATE="gs://b/t.json", MAX_WORKERS="5", **PLACE
    )


def test_the_template_is_built_of_files_that_are_there(tools):
  given = {"IMAGE": "r/worker:0.1.0", "LAUNCHER": "r/launcher:0.1.0", "LAUNCHER_TAG": "1", "TEMPLATE": "gs://b/t.json"}
  docker, push, gcloud = calls(tools, "flex_template.sh", "build", **given)
  assert docker[docker.index("--file") + 1] == f"{FOLDER}/Dockerfile" and push == ["docker", "push", "r/launcher:0.1.0"]
  assert gcloud[gcloud.index("--metadata-file") + 1] == f"{FOLDER}/metadata.json"
  dockerfile = (FOLDER / "Dockerfile").read_text()
  copied = re.findall(r"^COPY (?!--)(\S+) (\S+)", dockerfile, re.MULTILINE)
  assert copied == [("launch.py", "/template/launch.py")] and docker[-1] == str(FOLDER)
  assert "FLEX_TEMPLATE_PYTHON_PY_FILE=/template/launch.py\n" in dockerfile
