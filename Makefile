# Every target bootstraps .venv by itself from python3 (3.11) and does nothing again while the locks are the same.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
UV := $(VENV)/bin/uv pip

.PHONY: help setup repro test params docs ui clean lock asset-1.5b

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# the virtual environment; its stamp holds the locks' hash, so that a mere checkout does not install again
LOCKS := bootstrap.lock requirements.lock assets.lock pyproject.toml
STAMP := $(VENV)/.installed
setup: ## make .venv and install the pinned dependencies (repro and test do it by themselves)
	@want="$$(cat $(LOCKS) | sha256sum)"; \
	if [ "$$(cat $(STAMP) 2>/dev/null)" != "$$want" ]; then set -e; \
	  $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else "make: wanted Python 3.11, found %d.%d; name one: make PYTHON=/path/to/python3.11" % v)'; \
	  $(PYTHON) -m venv $(VENV); \
	  $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bootstrap.lock; \
	  $(UV) install --quiet --compile-bytecode --require-hashes -r requirements.lock; \
	  $(UV) install --quiet --no-deps --require-hashes -r assets.lock; \
	  $(UV) install --quiet --no-deps --no-build-isolation -e .; \
	  echo "$$want" > $(STAMP); fi

repro: setup ## the whole pipeline on real data: prepare, extract, embed, sweep, evaluate, track
	@dvc repro

test: setup ## lint, types, layers, then all tests
	@ruff check . && ruff format --check . && mypy && lint-imports --no-cache && pytest -q -n 2 --dist loadfile

params: setup ## compose params.yaml and conf/ into artifacts/config.yaml, and check every value
	@PYTHONPATH=src python -m pld.stages config

docs: setup ## make docs/reference.md from the code
	@PYTHONPATH=src python -m pld.cli.reference > docs/reference.md

ui: setup ## the MLflow UI on http://127.0.0.1:5000
	@pld ui

asset-1.5b: setup ## install the optional 1.5B Student
	@$(UV) install --no-deps --require-hashes -r assets-1.5b.lock

lock: setup ## pin again from pyproject.toml, assets.in, assets-1.5b.in and bootstrap.in
	@$(UV) compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --extra dev --group build pyproject.toml -o requirements.lock
	@for name in bootstrap assets assets-1.5b; do \
	  $(UV) compile -q --no-deps --python-version 3.11 --generate-hashes --no-emit-index-url $$name.in -o $$name.lock; done

clean: ## remove the pipeline's outputs (the store, the registry and the environment stay)
	@rm -rf artifacts data dvc_plots .pytest_cache .mypy_cache .ruff_cache .hypothesis
