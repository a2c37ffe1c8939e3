# Everything runs in a virtual environment of its own; PYTHON and VENV may be overridden.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOLS := .venv-tools
# The exact versions that the tests were run with; empty: the newest of everything.
CONSTRAINTS ?= constraints.txt
# uv resolves and downloads in a fraction of pip's time.
ifneq ($(shell command -v uv),)
  PIP_INSTALL := uv pip install --quiet --python $(BIN)/python
else
  PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.PHONY: install lock quickstart test test-latest test-all gpu test-slurm test-faults long-run lint docs format bench bench-check release-check container-check clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "medplus needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[dev]'
	touch $@

# Renews constraints.txt: what pip would install afresh, found out without installing it.
lock: LOCK := .venv-lock
lock:
	$(PYTHON) -m venv --clear $(LOCK)
	$(LOCK)/bin/python -m pip install --quiet packaging
	$(LOCK)/bin/python -m pip install --quiet --dry-run --ignore-installed \
	  --report $(LOCK)/report.json --editable '.[dev,docs]'
	$(LOCK)/bin/python .ci/lock.py $(LOCK)/report.json > $(LOCK)/constraints.txt
	mv $(LOCK)/constraints.txt constraints.txt
	rm -rf $(LOCK)

quickstart: install
	$(BIN)/medplus quickstart

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not extensive"

# The suite with the newest release of every dependency, in an environment of its own.
test-latest:
	rm -rf .venv-latest
	$(MAKE) test VENV=.venv-latest CONSTRAINTS=

test-all: install
	$(BIN)/python -m pytest -n 2 --dist worksteal

# All that only a GPU can show, in at most eight minutes: tests, rates, ratios, hours of the paper.
# BIN may be where python is on a machine without a registry: make gpu INSTALLED= BIN=/usr/bin
gpu: $(INSTALLED)
	$(BIN)/python -m benchmarks.gpu

# Needs root, and: apt-get install slurmctld slurmd slurm-client munge
test-slurm: install
	$(BIN)/python tests/slurm/cluster.py $(BIN)/python -m pytest -m slurm tests/slurm

# Every fault of docs/reliability.md: about twenty minutes on two cores.
test-faults: install
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/faults

# Everything at once on a small disk, killed at random, and what was lost: nothing is expected.
long-run: MINUTES := 120
long-run: install
	nice -n 15 $(BIN)/python -m tests.faults.longrun --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site of docs/ in site/: tutorials are run, links checked. Open site/index.html, no server needed.
docs: install
	$(PIP_INSTALL) $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[docs]'
	$(BIN)/python -m mkdocs build

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m benchmarks

bench-check: install
	$(BIN)/python -m benchmarks --check

# What would be released: the last commit built into dist/, looked through, and its wheel tried in a
# fresh environment and an empty folder: about ten minutes, and 9 GB while it lasts.
release-check: $(TOOLS)
	rm -rf .venv-release
	$(TOOLS)/bin/python .ci/release.py .venv-release
	rm -rf .venv-release

# The Dockerfile linted; where docker or podman answers, the image built and tried, too (TORCH=cuda).
container-check: $(TOOLS)
	PATH="$(abspath $(TOOLS))/bin:$$PATH" .ci/container

$(TOOLS): .ci/tools.txt
	$(PYTHON) -m venv --clear $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<

clean:
	rm -rf $(VENV) .venv-latest .venv-lock .venv-release $(TOOLS) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
