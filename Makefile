PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long test-all check docs clean

demo: .venv/installed
	-$(BIN)/stabdiag scan sample_models/sick/deep_sigmoid.py
	$(BIN)/stabdiag scan sample_models/healthy/gpt2.py

test: .venv/installed
	$(BIN)/python -m pytest -n auto -m "not long"

test-long: .venv/installed
	$(BIN)/python -m pytest -n auto -m long

test-all: test test-long

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/docs
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --strict

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch .venv/docs

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[test,dev]"
	touch .venv/installed

clean:
	rm -rf .venv build dist
