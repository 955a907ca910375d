# Two commands do everything on a machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
WORKERS ?= 3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MODEL := models/SmolLM2-135M-Instruct/model.safetensors

# Python keeps what it compiles, and pytest what it rewrites: without that each process compiles this package anew, and each worker all
# tests, which was a third of a worker's time to begin.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo quickstart notebook test test-rest test-all test-ci slowest durations fuzz chaos docs check audit render dist test-floors mutants clean

help:
	@echo "make demo     set up, then search SmolLM2-135M for country, relation and answer"
	@echo "make test     set up, then the tests of everything, on two cores: minutes"
	@echo "make test-rest  the slow tests, which make test leaves out: Slurm, PostgreSQL, browsers, faults, benchmarks, whole grids"
	@echo "make test-all both of these"
	@echo "make test-ci  make test, and the slow tests that .ci/run adds to it"
	@echo "make chaos    500 faults on a Ray of three nodes (make test-rest has 25); about an hour"
	@echo "make fuzz     1,000 broken job files, as many files of pairs, 100 broken searches (make test has fewer); some minutes"
	@echo "make check    ruff, mypy, and an audit of the pinned packages"
	@echo "make docs     the site of docs/, in build/docs: search, dark mode, the notebook"
	@echo "make slowest  where the time of the last make test, test-rest and test-ci went, by file and by test"
	@echo "make mutants  $$(grep -c '^    Mutant(' scripts/mutants.py) planted faults, each of which the tests of its room must see; at most half an hour"
	@echo "make test-floors  the quick start and some tests on the oldest versions that pyproject.toml allows, in build/floors"
	@echo "make dist     an sdist, and the wheel that is built from it, in dist/"
	@echo "make install  the set-up alone: all that the commands above, the tests and benchmarks/ need"

install: $(INSTALLED) $(MODEL)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"raysearch needs Python 3.11 or newer, this is {sys.version.split()[0]}; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# pip first, for that of Python 3.11 takes twice as long. Then torch, alone: a range that another package asks would bring gigabytes of
# CUDA libraries on a machine without a GPU.
$(INSTALLED): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check pip==26.3
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

$(MODEL): scripts/fetch_smollm2.py | $(INSTALLED)
	$(BIN)/python scripts/fetch_smollm2.py
	@touch $@

demo: install
	$(BIN)/raysearch submit jobs/capitals.yaml

quickstart: $(INSTALLED)
	$(BIN)/raysearch submit jobs/quickstart.yaml

# docs/tutorials/notebook.ipynb from docs/tutorials/notebook.py, executed; a test holds its outputs to what they are today.
notebook: $(INSTALLED)
	$(BIN)/python scripts/make_notebook.py

# What each test took is kept in build/. A file's tests stay on one worker, the longest file first (tests/scheduling.py). There is a worker
# more than cores, for some wait: for Ray to start, for a lease to end. TESTS=tests/cli are those of one room; FLAGS are pytest's.
TESTS ?= tests
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)

test: install
	$(PYTEST) $(TESTS) -m "not slow" --junitxml build/junit.xml $(FLAGS)

test-rest: install
	$(PYTEST) $(TESTS) -m slow --junitxml build/junit-rest.xml $(FLAGS)

test-all:
	$(MAKE) test
	$(MAKE) test-rest

# In one go, for the slow tests of these files and rooms (tests/scheduling.py names them) often wait: for PostgreSQL, a browser.
test-ci: install
	$(PYTEST) $(TESTS) -m "not slow or ci" --junitxml build/junit-ci.xml $(FLAGS)

slowest: $(INSTALLED)
	$(BIN)/python scripts/slowest_tests.py

# For checkouts that have no timings yet: what the last make test-all took, into tests/durations.json.
durations: $(INSTALLED)
	$(BIN)/python -m tests.scheduling

fuzz: $(INSTALLED)
	$(BIN)/python -m pytest tests/fuzz --hypothesis-profile=fuzz --hypothesis-show-statistics

chaos: install
	$(BIN)/python -m tests.cluster.chaos --faults 500

# The plain files in deploy/ are what the templates give for the quickstart; a test holds them to it.
render: $(INSTALLED)
	$(BIN)/raysearch deploy render slurm jobs/quickstart.yaml --to deploy
	$(BIN)/raysearch deploy render kuberay jobs/quickstart.yaml --model-path /opt/raysearch/jobs/planted/model --to deploy
	$(BIN)/raysearch deploy render compose jobs/quickstart.yaml --to deploy
	$(BIN)/raysearch deploy render ray jobs/quickstart.yaml --to deploy
	rm -f deploy/ray/wheels/*.whl  # made of the code of the day, where it is used

# The oldest versions that pyproject.toml allows, but for torch, whose old versions indexes offer with CUDA alone: what the project is
# tested with otherwise. MLflow 3.7 asks for sqlalchemy<3 and does not take 2.1. Warnings are no errors here: they are of old packages over new ones.
FLOORS := build/floors
PIP_FLOORS := $(FLOORS)/bin/pip install --quiet --disable-pip-version-check
FLOOR_TESTS := tests/test_private_parts.py tests/job/test_job.py tests/store/test_journal.py tests/tracking/test_mlflow_mirror.py \
  tests/engine/loading/test_factory.py tests/interventions/test_saved_intervention.py tests/report/test_heatmap.py tests/report/test_results.py

test-floors:
	rm -rf $(FLOORS)
	$(PYTHON) -m venv $(FLOORS)
	$(PIP_FLOORS) torch==2.13.0
	$(FLOORS)/bin/python scripts/floors.py gguf peft server > $(FLOORS)/floors.txt
	$(PIP_FLOORS) -r $(FLOORS)/floors.txt 'sqlalchemy<2.1' beartype pytest pytest-timeout pytest-xdist hypothesis 'moto[s3,server]'
	$(PIP_FLOORS) --no-deps -e .
	$(FLOORS)/bin/raysearch submit jobs/quickstart.yaml --store $(FLOORS)/runs --tracking-uri sqlite:///$(FLOORS)/mlflow.db
	$(FLOORS)/bin/python -m pytest -n 0 -m "not slow" -W default $(FLOOR_TESTS)

mutants: install
	$(BIN)/python scripts/mutants.py

# The wheel is built from the sdist, so that the sdist is known to be whole.
DIST ?= dist
dist: $(INSTALLED)
	rm -f $(DIST)/raysearch_alignment-*
	$(BIN)/python -c 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])' $(DIST)
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir $(DIST) $(DIST)/raysearch_alignment-*.tar.gz

# Warnings are errors, and a link that leads nowhere is one.
docs: $(INSTALLED)
	$(BIN)/sphinx-build -q -c docs -b html -W --keep-going . build/docs
	@echo build/docs/index.html

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/audit.py

audit: $(INSTALLED)
	$(BIN)/python scripts/audit.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
