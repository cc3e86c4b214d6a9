"""The rules of docs/architecture.md that a machine can hold: imports, names, lengths, what is packaged."""

import ast
import re
import shutil
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "sorbus", "transforms")
MAX_LINES = 500


def _module_of(path):
  parts = path.relative_to(REPOSITORY).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _python_files(*folders):
  return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


MODULES = {_module_of(path): path for path in _python_files(*PACKAGES)}


@cache
def _imports(module):
  """Every module that `module` names in an import, at whatever depth: `from a import b` counts as a and as a.b."""
  found = set()
  for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{module} line {node.lineno}: imports are absolute, so that these rules can read them"
      found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
  return found


def _imports_of_ours(module):
  return _imports(module) & MODULES.keys() - {module}


def _imports_package(module, package):
  return any(name.split(".")[0] == package for name in _imports(module))


VERBS = {module for module in MODULES if module.startswith("transforms.") and _imports_package(module, "apache_beam")}
NOUNS = {module for module in MODULES if module.startswith("transforms.")} - VERBS


def _breaches(importers, forbidden):
  return sorted(f"{a} imports {b}" for a in importers for b in _imports_of_ours(a) if forbidden(b))


def test_transforms_do_not_import_the_pipeline():
  assert not _breaches(VERBS | NOUNS, lambda name: name.split(".")[0] == "pipeline")


def test_the_python_interface_is_on_top_and_needs_no_beam():
  ours = {module for module in MODULES if module.split(".")[0] == "sorbus"}
  assert not _breaches(MODULES.keys() - ours, ours.__contains__)
  assert not [module for module in ours if _imports_package(module, "apache_beam")] + _breaches(
    ours, VERBS.__contains__
  )


def test_nouns_do_not_import_verbs():
  # A module is a verb by importing Beam, so this also keeps Beam out of what a noun brings along.
  assert VERBS and NOUNS
  assert not _breaches(NOUNS, VERBS.__contains__)


def test_modules_form_a_ladder():
  list(TopologicalSorter({module: _imports_of_ours(module) for module in MODULES}).static_order())  # raises CycleError


def test_work_on_models_needs_no_beam():
  model = [module for module in MODULES if module.startswith("pipeline.model")]
  assert not [module for module in model if _imports_package(module, "apache_beam")]
  assert not _breaches(model, VERBS.__contains__)


def test_tensorflow_is_imported_in_two_places():
  importers = {module for module in MODULES if _imports_package(module, "tensorflow")}
  assert not {
    name for name in importers if name != "transforms.frozen_graph" and not name.startswith("pipeline.model.")
  }


def test_commands_read_parquet_without_threads_of_arrows():
  """One may let go of bytes that Python lent it while Python ends, which aborts a process whose work is done."""
  reads = [
    (name, node)
    for name, path in MODULES.items()
    if name.startswith("pipeline.") and "pyarrow.parquet" in _imports(name)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Call)
    and re.fullmatch(r"pq\.read_table|parquet\.(read|iter)(_\w+)?", ast.unparse(node.func))
  ]
  assert len(reads) >= 6
  assert not [
    f"{name} line {node.lineno}" for name, node in reads if "use_threads=False" not in map(ast.unparse, node.keywords)
  ]


def test_command_line_flags_are_parsed_in_one_module_and_declared_beside_it():
  importers = {module for module in MODULES if _imports_package(module, "argparse")}
  flags = {name for name in importers if name.startswith("pipeline.") and name.endswith("flags")}
  assert importers - flags == {"pipeline.command_line", "pipeline.config_file"}


def test_no_module_is_called_utils_or_as_one_of_the_standard_librarys():
  forbidden = set(sys.stdlib_module_names) | {"utils", "util"}
  assert not [module for module in MODULES if forbidden & set(module.split(".")) - {"__main__"}]


def test_no_file_is_too_long_to_read():
  files = _python_files(*PACKAGES, "tests", "benchmarks", "examples")
  lengths = {path.relative_to(REPOSITORY).as_posix(): len(path.read_bytes().splitlines()) for path in files}
  assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


def test_setup_packages_every_module_and_no_test(stated):
  assert set(stated["packages"]) == {_module_of(path.parent / "__init__.py") for path in MODULES.values()}


def test_every_pinned_package_lies_in_setups_range(stated):
  ranges = {Requirement(line).name: Requirement(line).specifier for line in stated["install_requires"]}
  lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
  pins = dict(line.split("#")[0].strip().split("==") for line in lines if not line.startswith("#"))
  assert pins.keys() == ranges.keys()
  assert not {name: pin for name, pin in pins.items() if pin not in ranges[name]}


def test_every_requirement_has_its_reason():
  for name in ("requirements.txt", "requirements-dev.txt", "requirements-peers.txt", "deploy/worker/requirements.txt"):
    lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if "==" in line and not re.search(r"  # \w", line)]


def test_make_help_lists_every_target_for_people():
  if not shutil.which("make"):
    pytest.skip("needs make, which is not on this machine")
  phony = " ".join(re.findall(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
  shown = subprocess.run(["make"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout  # help by default
  assert set(phony.split()) == set(re.findall(r"^make (\S+)", shown, re.MULTILINE))
