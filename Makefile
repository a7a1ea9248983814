# Every target bootstraps .venv by itself from python3 (3.11) and does nothing again while the locks are the same.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
UV := $(VENV)/bin/uv pip

.PHONY: help setup repro lint test test-full params docs ui bench clean lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# the virtual environment; its stamp holds the locks' hash, so that a mere checkout does not install again
LOCKS := bootstrap.lock requirements.lock assets.lock pyproject.toml
STAMP := $(VENV)/.installed
setup: ## make .venv and install the pinned dependencies (repro and test do it by themselves)
	@want="$$(cat $(LOCKS) | sha256sum)"; \
	if [ "$$(cat $(STAMP) 2>/dev/null)" != "$$want" ]; then set -e; \
	  $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else "make: expected Python 3.11, got %d.%d; name one: make PYTHON=/path/to/python3.11" % v)'; \
	  $(PYTHON) -m venv $(VENV); \
	  $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bootstrap.lock; \
	  $(UV) install --quiet --compile-bytecode --require-hashes -r requirements.lock; \
	  $(UV) install --quiet --no-deps --require-hashes -r assets.lock; \
	  $(UV) install --quiet --no-deps --no-build-isolation -e .; \
	  echo "$$want" > $(STAMP); fi

repro: setup ## the whole pipeline on real data: prepare, extract, embed, sweep, evaluate, track
	@dvc repro

lint: setup ## lint, format, types, layers
	@ruff check . && ruff format --check . && mypy && lint-imports --no-cache

PYTEST := pytest -q -n 2 --dist loadfile --no-loadscope-reorder
test: lint ## lint, then all tests but the slow ones
	@$(PYTEST) -m "not slow"

test-full: lint ## lint, then all tests, also the slow ones: benches, kills, scale, real servers
	@$(PYTEST)

params: setup ## compose params.yaml and conf/ into artifacts/config.yaml, and check every value
	@PYTHONPATH=src python -m pld.stages config

docs: setup ## regenerate the reference pages, then build docs/ into site/ (a broken link fails)
	@PYTHONPATH=src python -m pld.cli.reference
	@zensical build --clean --strict

ui: setup ## the MLflow UI on http://127.0.0.1:5000
	@pld ui

# llama-cpp-python is compiled for this CPU (4 minutes on 2 idle cores), GCC's bug mended; where that fails, its rows say so
BENCH_LOCKS := bench.lock bench/gcc_amx.h
BENCH_STAMP := $(VENV)/.bench-installed
bench: setup ## the Student against its rivals, into bench/results.md (OPTIONS='--quick' for two minutes, printed)
	@want="$$(cat $(BENCH_LOCKS) | sha256sum)"; \
	if [ "$$(cat $(BENCH_STAMP) 2>/dev/null)" != "$$want" ]; then \
	  echo "bench: compiling llama-cpp-python, once" >&2; \
	  $(UV) install --quiet --no-deps --require-hashes -r bench.lock \
	    --config-setting "cmake.define.CMAKE_CXX_FLAGS=-include $(CURDIR)/bench/gcc_amx.h" && echo "$$want" > $(BENCH_STAMP) || \
	    echo "bench: llama-cpp-python can't be compiled here; it is left out" >&2; fi
	@python bench/student.py $(OPTIONS)
	@if [ -z "$(OPTIONS)" ]; then python bench/breakdown.py; fi
	@if [ -z "$(OPTIONS)" ] && [ -d artifacts/embeddings ]; then python bench/sweep.py; fi

lock: setup ## pin again from pyproject.toml and the *.in files
	@$(UV) compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --all-extras --group build pyproject.toml -o requirements.lock
	@for name in bootstrap assets; do \
	  $(UV) compile -q --no-deps --python-version 3.11 --generate-hashes --no-emit-index-url $$name.in -o $$name.lock; done
	@$(UV) compile -q --python-version 3.11 --generate-hashes --no-emit-index-url -c requirements.lock bench.in -o bench.lock

clean: ## remove the pipeline's outputs (the store, the registry and the environment stay)
	@rm -rf artifacts data dvc_plots .pytest_cache .mypy_cache .ruff_cache .hypothesis
