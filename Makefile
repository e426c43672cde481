# `make test` and `make demo` do all set-up themselves, once, in .venv.
PYTHON ?= python3
HOST ?= pyro
WORKERS ?= 2
SUITES ?= contracts core pyro_host numpyro_host

BIN := .venv/bin
STAMP := .venv/.ready
PYTEST := $(BIN)/python -m pytest -q

# Two frameworks on few cores: thread pools that wait for each other make every timing worse.
ONE_THREAD = OMP_NUM_THREADS=1 XLA_FLAGS="--xla_cpu_multi_thread_eigen=false $(XLA)"

# XLA's older emitters compile in half the time, in one piece in less; small tests do little else.
suites doctest: XLA = --xla_cpu_use_fusion_emitters=false \
	--xla_cpu_parallel_codegen_split_count=1 $(ISA)

.DEFAULT_GOAL := help
.PHONY: help setup lint format test suites doctest isa seeds demo tutorials pages benchmark
.PHONY: evidence-report docs build test-wheel clean

help:
	@echo "make demo [HOST=pyro|numpyro]   train and compare two priors on real digits"
	@echo "make tutorials                  run all tutorials and check their claims; figures in tutorial_output"
	@echo "make pages                      run the code on the pages of the documentation, in full"
	@echo "make test                       lint, then every test and every example"
	@echo "make suites | doctest           the tests alone, the examples in docstrings alone"
	@echo "make isa                        the tests with the vector widths of older processors"
	@echo "make seeds [SHIFT='1 2 3']      the tests with other seeds, for thin margins"
	@echo "make benchmark [QUICK=1]        training steps, samplers and log Z timed beside other libraries"
	@echo "make evidence-report            tests/evidence/RESULTS.md, from the results"
	@echo "make docs                       docs/_build/html; changed tutorials are run"
	@echo "make build | test-wheel         dist/; the wheel in empty environments, one for each host"
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

format: $(STAMP)
	@$(BIN)/ruff check -q --fix-only .
	@$(BIN)/ruff format -q .

# What runs in one process runs beside another.
test: $(STAMP)
	@$(MAKE) --no-print-directory -j 2 -O lint doctest
	@$(MAKE) --no-print-directory suites

# Each host in processes of its own, one after the other; a file stays together, for what it compiles.
suites: $(STAMP)
	@failed=0; for suite in $(SUITES); do \
		echo "$$suite"; \
		$(ONE_THREAD) $(PYTEST) -n $(WORKERS) --dist loadfile tests/$$suite || failed=1; \
	done; exit $$failed

# Nothing is defined beforehand: an example brings what it needs.
doctest: $(STAMP)
	@$(ONE_THREAD) $(PYTEST) --doctest-modules pyro_ebm \
		--ignore=pyro_ebm/pyro --ignore=pyro_ebm/numpyro
	@$(ONE_THREAD) $(PYTEST) --doctest-modules pyro_ebm/pyro
	@$(ONE_THREAD) $(PYTEST) --doctest-modules pyro_ebm/numpyro

# A seed gives other bits when vectors have another width; no test may depend on them. Caches apart:
# torch's compiler (2.13) would take code for other vectors from its own, and compute nonsense.
isa: $(STAMP)
	@ATEN_CPU_CAPABILITY=avx2 TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/.pytest_cache/avx2 \
		$(MAKE) suites ISA=--xla_cpu_max_isa=AVX2
	@ATEN_CPU_CAPABILITY=default TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/.pytest_cache/default \
		$(MAKE) suites ISA=--xla_cpu_max_isa=SSE4_2

# A margin that holds for one seed alone proves nothing.
SHIFT ?= 1 2 3
seeds: $(STAMP)
	@failed=0; for shift in $(SHIFT); do echo "seeds shifted by $$shift"; \
		SEED_SHIFT=$$shift $(MAKE) --no-print-directory suites || failed=1; \
	done; exit $$failed

demo: $(STAMP)
	@$(ONE_THREAD) $(BIN)/python tutorials/digits_$(HOST).py --output demo_output

# The last part of a file's name is its host. Claims are sentences that rest on a number of the run.
tutorials: $(STAMP)
	@failed=0; for file in tutorials/[0-9][0-9]_*.py; do \
		echo "$$file"; host=$${file##*_}; \
		(cd tests && PYRO_EBM_FIGURES=../tutorial_output/$${host%.py} $(ONE_THREAD) \
			../$(BIN)/python -m helpers.claims ../$$file) || failed=1; \
	done; exit $$failed

pages: $(STAMP)
	@cd tests && for host in pyro numpyro; do $(ONE_THREAD) ../$(BIN)/python -m helpers.pages $$host || exit 1; done

# In the environment: QUICK=1, DEVICE=cuda, HOSTS=pyro, TASKS=CD.
benchmark: $(STAMP)
	@$(BIN)/python -m pip install -qq -c constraints.txt --group benchmark
	@$(BIN)/python tests/benchmarks

evidence-report: $(STAMP)
	@cd tests && ../$(BIN)/python -m evidence report

# Without a network, and warnings are errors. Tutorials are run again if their code has changed;
# PYRO_EBM_FAST=1 makes their runs short.
docs: $(STAMP)
	@$(BIN)/python -m pip install -qq -c constraints.txt --group docs
	@$(ONE_THREAD) $(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo docs/_build/html/index.html

build: $(STAMP)
	@$(BIN)/python -m pip install -qq -c constraints.txt --group build
	@rm -rf dist
	@$(BIN)/python -m hatchling build

# With what the code of the README imports beside the package.
test-wheel: build
	@for host in pyro numpyro; do \
		rm -rf build/$$host; $(PYTHON) -m venv build/$$host; \
		[ $$host = pyro ] && beside= || beside="equinox optax"; \
		build/$$host/bin/python -m pip install -qq -c constraints.txt "$$(echo dist/*.whl)[$$host]" $$beside \
			&& $(ONE_THREAD) MPLBACKEND=agg build/$$host/bin/python -P tests/contracts/quick_start.py $$host || exit 1; \
	done

clean:
	@rm -rf docs/_build build dist demo_output tutorial_output
	@rm -rf .pytest_cache .ruff_cache .import_linter_cache
