# Needs Python 3.11 to 3.13 and make; everything else goes into .venv. Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PEER := .venv-transformers
PEERS := .venv-peers
AIRFLOW := .venv-airflow
FAKE_GCS := github.com/fsouza/fake-gcs-server@v1.56.1 h1:K03sAvbLvDz4hAynpCCUqnNRp+ik9JFSvHbkD/wTPOU=
PRISM := github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0 h1:RsC61pHEvtySEHAURQyP/+CVOJm/hy5hewuG9JF0+Ow=
KILLS := 40
PARAGRAPHS := 20000
FAULTS := 80
FLINK := 2.2
CODE := pipeline sorbus transforms tests benchmarks examples deploy setup.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test environment package lint types clean
.PHONY: test-kill test-image test-transformers test-airflow test-gcs test-prism test-flink test-browser picture
.PHONY: flink-cluster flink-down
.PHONY: bench bench-peers bench-precision bench-threads bench-tokens bench-whitening bench-memory bench-nights
.PHONY: bench-scale bench-estimate bench-sweep

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

test-image: package  ## the steps of the worker image's Dockerfile, in a clean environment (3 GB)
	SORBUS_IMAGE=1 $(BIN)/python -m pytest -rs --durations=3 tests/integration/test_worker_image.py

test-transformers: $(READY) $(PEER)/ready demo/all-MiniLM-L6-v2  ## agreement with transformers on PyTorch (6 GB)
	$(BIN)/python -m pytest tests/integration/test_transformers.py tests/integration/test_transformers_xlnet.py

test-airflow: $(READY)  ## the DAG of deploy/schedule, loaded by Airflow itself (0.3 GB)
	@$(MAKE) --no-print-directory $(AIRFLOW)/ready && $(BIN)/python -m pytest tests/integration/test_airflow.py || \
	  { test ! -e $(AIRFLOW)/ready && echo "test-airflow: Airflow cannot be installed here; skipped"; }

test-browser: $(READY)  ## a report in headless Chromium, both themes and a phone's width; SORBUS_CHROMIUM
	$(BIN)/python -m pytest -rs tests/browser

picture: $(READY) demo/all-MiniLM-L6-v2 demo/corpus  ## docs/report.png, drawn anew by Chromium; SORBUS_CHROMIUM
	$(BIN)/python -m tests.browser.picture demo/all-MiniLM-L6-v2 demo/corpus docs/report.png

# What these two and Flink cannot have here they say in a line, by exit code 69, and skip.
test-gcs: $(READY)  ## datasets, input and encoders on gs://, on a fake server that Go builds
	@tests/go_server.sh $(FAKE_GCS) && \
	  SORBUS_FAKE_GCS=$(abspath .go/bin/fake-gcs-server) $(BIN)/python -m pytest tests/transforms/test_storage.py \
	  tests/transforms/test_gcs_storage.py tests/integration/test_mixed_places.py -k "gs or gcs or google" || [ $$? = 69 ]

test-prism: $(READY) demo/encoder demo/corpus  ## jobs on Prism, Beam's own portable engine, which Go builds
	@tests/go_server.sh $(PRISM) && \
	  SORBUS_PRISM=$(abspath .go/bin/prism) SORBUS_PARAGRAPHS=$(PARAGRAPHS) \
	  $(BIN)/python -m pytest -rs tests/engines/test_prism.py || [ $$? = 69 ]

# Both lines of Flink, unless one is asked for: make FLINK=1.20 test-flink
test-flink: $(READY) demo/encoder demo/corpus  ## jobs on a real Flink 2.2 and 1.20, parts of it killed (700 MB)
	SORBUS_FLINK="$(if $(filter command line,$(origin FLINK)),$(FLINK),2.2 1.20)" SORBUS_PARAGRAPHS=$(PARAGRAPHS) \
	  $(BIN)/python -m pytest -rs tests/engines/test_flink*.py

flink-cluster: $(READY)  ## a Flink on this machine, FLINK=2.2 or 1.20; deploy/flink/submit.sh sends a job there
	@deploy/flink/cluster.sh up $(FLINK)
	@deploy/flink/fetch.sh job-server $(FLINK) > /dev/null || [ $$? = 69 ]  # it has said what is missing

flink-down:  ## end it, and nothing else
	@deploy/flink/cluster.sh down

environment: $(READY)  ## .venv with the pinned packages and sorbus itself

# From nothing: of what an earlier build left in dist/, none may go into an image. The wheel is built from the sdist.
package: $(READY)  ## sdist and wheel in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist

lint: $(READY)  ## ruff: rules and format; hadolint: the Dockerfiles
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/hadolint deploy/worker/Dockerfile deploy/dataflow/Dockerfile

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

# Corpora that the repository does not carry, where they are: benchmarks/README.md says which.
DATA := ../shared/data
BENCH_DATA := $(if $(wildcard $(DATA)),--data $(DATA))
# By the code as it is: an encoder that lies about may have an older graph.
FREEZE := $(BIN)/sorbus freeze --overwrite demo/all-MiniLM-L6-v2 demo/encoder

bench: $(READY) demo/all-MiniLM-L6-v2  ## what takes minutes: encoder, where time goes, start-up, a night; then the page
	$(FREEZE)
	$(BIN)/python -m benchmarks.encoder demo/encoder $(BENCH_DATA)
	$(BIN)/python -m benchmarks.operations demo/encoder $(BENCH_DATA)
	$(BIN)/python -m benchmarks.stages demo/encoder $(BENCH_DATA)
	$(BIN)/python -m benchmarks.start_up
	$(BIN)/python -m benchmarks.night $(BENCH_DATA)
	$(BIN)/python -m benchmarks.tables

bench-peers: $(READY) demo/all-MiniLM-L6-v2  ## embed against sentence-transformers (6 GB); MODELS, CORPORA, ROUNDS, DATA
	@$(MAKE) --no-print-directory $(PEERS)/ready || echo "bench-peers: no peer can be installed here; ours alone"
	$(BIN)/python -m benchmarks.end_to_end --peers $(PEERS)/bin/python $(BENCH_DATA) $(if $(MODELS),--models $(MODELS)) \
	  $(if $(CORPORA),--corpora $(CORPORA)) $(if $(ROUNDS),--rounds $(ROUNDS))
	$(BIN)/python -m benchmarks.tables

bench-precision: $(READY) demo/all-MiniLM-L6-v2  ## float32 and bfloat16: accuracy and speed; needs DATA
	$(FREEZE)
	$(BIN)/python -m benchmarks.precision demo/encoder --data $(DATA)

bench-threads: $(READY) demo/all-MiniLM-L6-v2  ## callers of a session, threads of an operation, tokens of a batch
	$(FREEZE)
	$(BIN)/python -m benchmarks.threads demo/encoder $(BENCH_DATA) --precision float32
	$(BIN)/python -m benchmarks.threads demo/encoder $(BENCH_DATA) --precision bfloat16

# TEXTS="FILE ...", a document a line, and the VOCABULARY that goes with them.
bench-tokens: $(READY) demo/corpus demo/all-MiniLM-L6-v2  ## padding of batches and speed of tokenising; TEXTS, VOCABULARY
	for texts in $(or $(TEXTS),demo/corpus/*.jsonl); do \
	  for what in padding tokenising; do \
	    $(BIN)/python -m benchmarks.$$what $(or $(VOCABULARY),demo/all-MiniLM-L6-v2/vocab.txt) $$texts || exit 1; done; done

bench-whitening: $(READY)  ## whitening a million vectors, ours and its peers' ways: time, memory, accuracy (17 GB)
	$(BIN)/python -m benchmarks.whitening --accuracy
	$(BIN)/python -m benchmarks.whitening $(if $(VECTORS),--vectors $(VECTORS))
	$(BIN)/python -m benchmarks.tables

bench-memory: $(READY)  ## peak memory of embed on 100 MB and on 1.6 GB of text
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.tables

bench-estimate: $(READY) demo/all-MiniLM-L6-v2  ## sorbus estimate against the run that it foretells; DATA, ROUNDS
	$(BIN)/python -m benchmarks.estimate --anew $(BENCH_DATA) $(if $(ROUNDS),--rounds $(ROUNDS))
	$(BIN)/python -m benchmarks.tables

bench-sweep: $(READY) demo/all-MiniLM-L6-v2  ## sorbus evaluate --sweep against one pass; needs DATA; ROUNDS
	$(BIN)/python -m benchmarks.sweep --data $(DATA) $(if $(ROUNDS),--rounds $(ROUNDS))
	$(BIN)/python -m benchmarks.tables

bench-nights: $(READY)  ## twenty nights over a corpus that changes: what each encodes and takes
	$(BIN)/python -m benchmarks.nights $(if $(TEXTS),--texts $(TEXTS)) $(if $(ENCODER),--encoder $(ENCODER))

bench-scale: $(READY)  ## everything but encoding on 10 million texts (DOCUMENTS, FOLDER): 25 GB, most of an hour
	$(BIN)/python -m benchmarks.scale $(if $(DOCUMENTS),--documents $(DOCUMENTS)) $(if $(FOLDER),--folder $(FOLDER))

clean: flink-down  ## remove the environments, the demo and every cache
	rm -rf $(VENV) $(PEER) $(PEERS) $(AIRFLOW) demo .flink .go build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
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

$(PEERS)/ready: requirements-peers.txt
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir -r $<
	@touch $@

# Not part of .venv either: its packages and Beam's could not agree on versions.
$(AIRFLOW)/ready: requirements-airflow.txt
	$(PYTHON) -m venv --clear $(AIRFLOW)
	$(AIRFLOW)/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir -r $<
	@touch $@

# Each script builds its whole folder elsewhere and renames it: where the folder is, it is complete.
demo/all-MiniLM-L6-v2: examples/fetch_encoder.py | $(READY)
	$(BIN)/python examples/fetch_encoder.py $@

demo/encoder: | demo/all-MiniLM-L6-v2
	$(BIN)/sorbus freeze demo/all-MiniLM-L6-v2 $@

demo/corpus: examples/write_corpus.py | $(READY)
	$(BIN)/python examples/write_corpus.py $@
