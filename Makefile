PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all check clean

demo: .venv/installed
	-$(BIN)/stabdiag scan sample_models/sick/deep_sigmoid.py
	$(BIN)/stabdiag scan sample_models/healthy/gpt2.py

test: .venv/installed
	$(BIN)/python -m pytest -n auto -m "not long"

test-all: .venv/installed
	$(BIN)/python -m pytest -n auto

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[test,dev]"
	touch .venv/installed

clean:
	rm -rf .venv build dist
