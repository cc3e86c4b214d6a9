# Needs Python 3.11 to 3.13 and make; everything else goes into .venv. Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PEER := .venv-transformers
KILLS := 40
FAULTS := 80
CODE := pipeline transforms tests benchmarks examples setup.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-kill test-transformers environment lint types bench-memory bench-nights bench-scale clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) demo/all-MiniLM-L6-v2 demo/corpus  ## a real encoder and a small corpus, from download to search
	$(BIN)/sorbus freeze demo/all-MiniLM-L6-v2 demo/encoder
	$(BIN)/sorbus embed --input 'demo/corpus/*.jsonl' --id-column id --keep-columns text \
	  --encoder demo/encoder --dataset demo/dataset --whitening fit
	$(BIN)/sorbus show demo/dataset
	$(BIN)/sorbus search demo/dataset "how do I open a file"

test: lint types  ## environment, lint, types and tests
	$(BIN)/python -m pytest

test-kill: $(READY)  ## jobs killed at random moments, KILLS=40 of them, and files that fail, FAULTS=80
	SORBUS_KILLS=$(KILLS) SORBUS_FAULTS=$(FAULTS) $(BIN)/python -m pytest -s --durations=3 \
	  tests/integration/test_kills.py tests/integration/test_failing_file_system.py

test-transformers: $(READY) $(PEER)/ready demo/all-MiniLM-L6-v2  ## agreement with transformers on PyTorch (6 GB)
	$(BIN)/python -m pytest tests/integration/test_transformers.py

environment: $(READY)  ## .venv with the pinned packages and sorbus itself

lint: $(READY)  ## ruff: rules and format
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

bench-memory: $(READY)  ## peak memory of embed on 50 MB and on 800 MB of text
	$(BIN)/python -m benchmarks.memory

bench-nights: $(READY)  ## twenty nights over a corpus that changes: what each encodes and takes
	$(BIN)/python -m benchmarks.nights $(if $(TEXTS),--texts $(TEXTS)) $(if $(ENCODER),--encoder $(ENCODER))

bench-scale: $(READY)  ## everything but encoding on 10 million texts (DOCUMENTS, FOLDER): 25 GB, most of an hour
	$(BIN)/python -m benchmarks.scale $(if $(DOCUMENTS),--documents $(DOCUMENTS)) $(if $(FOLDER),--folder $(FOLDER))

clean:  ## remove the environments, the demo and every cache
	rm -rf $(VENV) $(PEER) demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

# Made anew from nothing when a requirement changes, so that no package lingers; `ready` is written last.
$(READY): requirements.txt requirements-dev.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and \
	  "Sorbus needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --editable .
	@touch $@

# Not part of .venv: it is large, and PyTorch and TensorFlow abort in one process.
$(PEER)/ready: requirements-transformers.txt
	$(PYTHON) -m venv --clear $(PEER)
	$(PEER)/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir -r $<
	@touch $@

# Each script builds its whole folder elsewhere and renames it: where the folder is, it is complete.
demo/all-MiniLM-L6-v2: examples/fetch_encoder.py | $(READY)
	$(BIN)/python examples/fetch_encoder.py $@

demo/corpus: examples/write_corpus.py | $(READY)
	$(BIN)/python examples/write_corpus.py $@
