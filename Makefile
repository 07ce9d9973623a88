# Each target makes what it needs. `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-unit test-data test-train test-process lint format docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

quickstart: $(BIN)/.run ## train, evaluate and document a small Swin on synthetic radiographs (a few minutes on 2 cores)
	$(BIN)/accelerate launch --config_file configs/accelerate/cpu.yaml --num_cpu_threads_per_process 1 scripts/train.py configs/quickstart.yaml --on_existing_run move_aside

PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test: $(BIN)/.dev ## run all tests (HF_CXR_NIH_ROOT=DIR adds those on real images)
	$(PYTEST) --doctest-modules

# In their own order the folders with the longest files come first, so that both workers end together.
test-unit: $(BIN)/.dev ## run the tests that train nothing and start no process, and the examples in docstrings
	$(PYTEST) --no-loadscope-reorder --doctest-modules tests/unit hf_cxr

test-data: $(BIN)/.dev ## run the tests that read and write data sets on disk
	$(PYTEST) --no-loadscope-reorder tests/data

test-train: $(BIN)/.dev ## run the tests that train a tiny model
	$(PYTEST) tests/train

test-process: $(BIN)/.dev ## run the tests that start processes: kills, two processes, commands
	$(PYTEST) tests/process

lint: $(BIN)/.dev ## check style, imports, formatting and the record of flags
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m hf_cxr.arguments.signatures --check

format: $(BIN)/.dev ## fix style and formatting, write the record of flags
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m hf_cxr.arguments.signatures

docs: $(BIN)/.dev ## build the site of docs/ into site/, strictly: a broken link or anchor is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir site

clean: ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist site

# The constraints pin the versions that the tests have run on.
$(BIN)/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("hf_cxr needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(BIN)/.dev: $(BIN)/.run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@
