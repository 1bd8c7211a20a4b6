PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test test-slow lint bench clean

quickstart: $(STAMP)  ## Walk the whole path on the embedded model and benchmark.
	$(BIN)/clasp-calib quickstart --budget 192

test: $(STAMP)  ## All unmarked tests, with coverage.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow" --cov --cov-report=term:skip-covered --cov-fail-under=85

test-slow: $(STAMP)  ## The tests marked slow.
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)  ## Style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## The committed results table, measured again (about half an hour on two cores).
	$(BIN)/python benchmarks/reference_table.py

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:  ## Remove the virtual environment.
	rm -rf $(VENV)
