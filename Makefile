# Two commands, each doing all of its own set-up on a machine that has Python 3.11, git and make:
#   make demo    search Python's documentation by meaning, in an embedded PostgreSQL
#   make test    the tests, on a real server of their own
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# what the tests run with; CI adds to it
EXTRAS ?= local,test
PYTEST_ARGS ?= -n 2

.PHONY: demo test test-random test-lowest coverage check docs bench clean

demo: $(VENV)/.demo
	$(BIN)/pgmrl demo

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

coverage: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS) --cov=pgmrl --cov-report=term:skip-covered

test-random: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS) -p randomly

# what a version can break, with the lowest of every library, in an environment of its own: see noxfile.py
test-lowest: $(VENV)/.check
	$(BIN)/nox -s lowest

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks all

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[local]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.check: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[local,test,dev]'
	@touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[local,docs]'
	@touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[local,bench]'
	@touch $@

clean:
	rm -rf $(VENV) site build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
