# `make test` and `make demo` do all set-up themselves, once, in .venv.
PYTHON ?= python3
HOST ?= pyro

BIN := .venv/bin
STAMP := .venv/.ready
PYTEST := $(BIN)/python -m pytest -q
PYRO_LOG := .pyro_tests.log

# Two frameworks on few cores: thread pools that wait for each other make every timing worse.
ONE_THREAD := OMP_NUM_THREADS=1 XLA_FLAGS=--xla_cpu_multi_thread_eigen=false

.DEFAULT_GOAL := help
.PHONY: help setup lint format test demo benchmark clean

help:
	@echo "make demo [HOST=pyro|numpyro]   train and compare two priors on real digits"
	@echo "make test                       lint, then every test"
	@echo "make benchmark                  samplers timed beside those of other libraries"
	@echo "make lint | format | setup | clean"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Expected Python 3.11 or newer, got " + sys.version)'
	@echo "Setting up .venv (the first time takes some minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq -c constraints.txt pip
	@$(BIN)/python -m pip install -qq -c constraints.txt --build-constraint constraints.txt \
		-e '.[all]' --group dev
	@touch $@

lint: $(STAMP)
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports --no-logo
	@$(PYTEST) tests/host_free/test_parity.py

format: $(STAMP)
	@$(BIN)/ruff check -q --fix-only .
	@$(BIN)/ruff format -q .

# Each host in a process of its own, side by side: NumPyro's output as it comes, Pyro's after it.
test: lint
	@$(ONE_THREAD) $(PYTEST) tests/host_free
	@$(ONE_THREAD) $(PYTEST) tests/on_pyro > $(PYRO_LOG) 2>&1 & pyro=$$!; \
	echo "NumPyro"; $(ONE_THREAD) $(PYTEST) tests/on_numpyro; numpyro_status=$$?; \
	wait $$pyro; pyro_status=$$?; \
	echo "Pyro"; cat $(PYRO_LOG); \
	test $$numpyro_status -eq 0 -a $$pyro_status -eq 0

demo: $(STAMP)
	@$(BIN)/python tutorials/digits_$(HOST).py --output demo_output

benchmark: $(STAMP)
	@$(BIN)/python -m pip install -qq -c constraints.txt --group benchmark
	@$(ONE_THREAD) $(BIN)/python tests/benchmarks/speed_pyro.py
	@$(ONE_THREAD) $(BIN)/python tests/benchmarks/speed_numpyro.py

clean:
	@rm -rf build dist demo_output $(PYRO_LOG) .pytest_cache .ruff_cache .import_linter_cache
