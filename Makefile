PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
QUICK_STAMP := $(VENV)/.quickstart

VLLM_VENV ?= .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_STAMP := $(VLLM_VENV)/.installed

HARNESS_VENV ?= .venv-harness
HARNESS_BIN := $(HARNESS_VENV)/bin
HARNESS_STAMP := $(HARNESS_VENV)/.installed

CASES ?= 12000
PART ?=

DOCS_VENV ?= .venv-docs
DOCS_BIN := $(DOCS_VENV)/bin
DOCS_STAMP := $(DOCS_VENV)/.installed

.PHONY: quickstart test test-slow fuzz nightly test-vllm test-harness lint reference-docs docs bench clean

quickstart: $(QUICK_STAMP)  ## Walk the whole path on the embedded model and benchmark.
	$(BIN)/clasp-calib quickstart --budget 192

# Hypothesis' own profile "ci" draws the same examples each time, so that a change fails by what it changed.
test: $(STAMP)  ## All unmarked tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --hypothesis-profile=ci -m "not slow and not vllm and not harness"

# What does not measure how workers or killed processes behave: such tests have the machine for themselves.
SIDE_BY_SIDE := tests/docs tests/artifacts tests/field tests/fuzz tests/calib tests/runtime tests/baselines tests/tools tests/harness tests/commands/test_every_architecture.py

test-slow: $(STAMP)  ## The tests marked slow.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --hypothesis-profile=ci -m slow $(SIDE_BY_SIDE)
	$(BIN)/python -m pytest --hypothesis-profile=ci -m slow $(SIDE_BY_SIDE:%=--ignore=%)

fuzz: $(STAMP)  ## Damaged files for everything that reads files: CASES of each kind.
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m fuzz --cases $(CASES)

# Tracing makes the tests half as long again.
nightly: fuzz  ## What takes too long for every change: fuzzers, other examples of the properties, and coverage.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not vllm and not harness" --cov --cov-report=term:skip-covered --cov-fail-under=85

test-vllm: $(VLLM_STAMP)  ## Labelling on vLLM itself, on a CPU, in an environment of its own (Linux, Python 3.11).
	OMP_NUM_THREADS=1 $(VLLM_BIN)/python -m pytest -m vllm tests/on_vllm

test-harness: $(HARNESS_STAMP)  ## The model clasp in lmms-eval itself, in an environment of its own (two minutes of one processor).
	OMP_NUM_THREADS=1 $(HARNESS_BIN)/python -m pytest -m harness tests/in_harness

lint: $(STAMP)  ## Style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

reference-docs: $(STAMP)  ## The reference pages, from help texts and docstrings.
	$(BIN)/python -m tools.docs.reference

docs: $(DOCS_STAMP)  ## The documentation site in build/site (installs half a minute, builds in seconds); a warning is an error.
	$(DOCS_BIN)/python -m tools.docs.site build/site-pages
	NO_MKDOCS_2_WARNING=1 $(DOCS_BIN)/mkdocs build --strict --config-file tools/docs/mkdocs.yml

bench: $(STAMP)  ## The results on the embedded model, measured again (hours; goes on where it stopped): all, or PART=table.
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench.py $(PART)

# Without compiling: most of what is installed is never imported, and Python compiles the rest when it is.
$(QUICK_STAMP): pyproject.toml constraints.txt
	@begun=$$(date +%s); \
	$(PYTHON) -m venv $(VENV) && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[plots]" && \
	touch $(QUICK_STAMP) && \
	echo "installed into $(VENV) in $$(($$(date +%s) - begun)) s"

$(STAMP): $(QUICK_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

# uv can leave packages out: torchvision, torchaudio and torchcodec would come as CUDA builds, which break vLLM on a
# CPU, and triton is a gigabyte that has no CPU backend. vLLM pins what conflicts with constraints.txt (numpy below 2.4).
$(VLLM_STAMP): pyproject.toml tests/on_vllm/requirements.txt tests/on_vllm/vllm_name/pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	links="$$($(VLLM_BIN)/python -m pip config get global.find-links 2>/dev/null || echo "$$PIP_FIND_LINKS")"; \
	$(VLLM_BIN)/uv pip install --quiet --compile-bytecode --python $(VLLM_BIN)/python \
		$${links:+--find-links "$$links"} --excludes tests/on_vllm/excludes.txt \
		-r tests/on_vllm/requirements.txt ./tests/on_vllm/vllm_name -e .
	touch $(VLLM_STAMP)

# What lmms-eval declares holds torchvision, which does not fit a torch for CPUs, and much that no test needs.
$(HARNESS_STAMP): pyproject.toml constraints.txt tests/in_harness/requirements.txt tests/in_harness/vlmevalkit.txt
	$(PYTHON) -m venv $(HARNESS_VENV)
	$(HARNESS_BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	links="$$($(HARNESS_BIN)/python -m pip config get global.find-links 2>/dev/null || echo "$$PIP_FIND_LINKS")"; \
	install="$(HARNESS_BIN)/uv pip install --quiet --python $(HARNESS_BIN)/python $${links:+--find-links $$links}"; \
	$$install -c constraints.txt -r tests/in_harness/requirements.txt -e . && \
	$$install --no-deps lmms-eval==0.7.3 && \
	$$install --no-deps --target $(HARNESS_VENV)/vlmevalkit -r tests/in_harness/vlmevalkit.txt
	touch $(HARNESS_STAMP)

$(DOCS_STAMP): tools/docs/requirements.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_BIN)/python -m pip install --quiet --disable-pip-version-check -r tools/docs/requirements.txt
	touch $(DOCS_STAMP)

clean:  ## Remove the virtual environments.
	rm -rf $(VENV) $(VLLM_VENV) $(HARNESS_VENV) $(DOCS_VENV)
