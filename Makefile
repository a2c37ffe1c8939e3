# Everything runs in a virtual environment of its own; PYTHON and VENV may be overridden.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install quickstart test test-all test-gpu test-slurm test-faults lint format bench bench-check clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "medplus needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

quickstart: install
	$(BIN)/medplus quickstart

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not extensive"

test-all: install
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-gpu: install
	$(BIN)/python -m pytest -m gpu

# Needs root, and: apt-get install slurmctld slurmd slurm-client munge
test-slurm: install
	$(BIN)/python tests/slurm/cluster.py $(BIN)/python -m pytest -m slurm tests/slurm

# Every fault of docs/reliability.md: about twenty minutes on two cores.
test-faults: install
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/faults

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m benchmarks

bench-check: install
	$(BIN)/python -m benchmarks --check

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
