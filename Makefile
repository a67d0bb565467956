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

.PHONY: setup prepare evaluate test fuzz check bench clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=…")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX_URL),)
	$(BIN)/python -m pip install --progress-bar off -q -c constraints.txt --no-deps --index-url $(TORCH_INDEX_URL) torch
endif
	$(BIN)/python -m pip install --progress-bar off -q -c constraints.txt -e '.[dev]'
	@touch $@

prepare: setup
	@test -f data/$(DATA)/manifest.json || $(BIN)/python -m toolrec data prepare $(DATA) $(if $(SOURCE),--source $(SOURCE))
	@test -f recommenders/$(DATA)/manifest.json || $(BIN)/python -m toolrec train data/$(DATA)

evaluate: prepare
	@$(BIN)/python -m toolrec evaluate data/$(DATA) --recommenders recommenders/$(DATA) $(EVALUATE_FLAGS)

# Two processes, each with a Ray of its own; a file's tests stay together, for they share what is slow to make.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Property tests with 10,000 examples each; on failure hypothesis prints what reproduces it.
fuzz: setup
	HYPOTHESIS_PROFILE=slow $(BIN)/python -m pytest --timeout=3600 --durations=0 \
		tests/surrogate/test_reply_properties.py tests/surrogate/test_parsing.py tests/memory tests/grammar tests/serve/test_door.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: prepare
	$(BIN)/python benchmarks/main_job.py data/$(DATA) --recommenders recommenders/$(DATA) $(EVALUATE_FLAGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
