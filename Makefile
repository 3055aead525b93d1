# What people and CI run. `make help` lists it.
#
# Every target brings first what it needs and is not there (setup/setup.sh); SETUP=check only says what is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
TESTBED := .venv/bin/testbed
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
# More words for pytest, such as: make test TESTS=tests/lab/test_api.py ARGS='-k sysctl -x'
TESTS ?= tests/lab tests/experiments
ARGS ?=
# Test files at a time: one more than there are cores, as labs and guests are often waited for.
WORKERS ?= $(shell expr $$(nproc) + 1)
SIDE_BY_SIDE = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# The lab that `make topology` brings up.
LAB ?= cross-endian
export SETUP
# Bytecode of the checkout is kept, whatever the environment says: hundreds of processes load it.
unexport PYTHONDONTWRITEBYTECODE

ifeq ($(SETUP),check)
# Nothing but the question what is missing.
.PHONY: setup topology test test-long test-wheel images experiments
setup topology test test-long test-wheel images experiments:
	@setup/setup.sh
.PHONY: wheel report
wheel report:
	@setup/setup.sh python
.PHONY: check check-report
check check-report:
	@setup/setup.sh python compilers
.PHONY: bench
bench:
	@setup/setup.sh python machine compose
else

.PHONY: topology
topology: setup ## the main job: a lab of both byte orders, every two kinds of host talking, the result on the screen
	@$(TESTBED) up topologies/$(LAB).yaml
	@$(TESTBED) exchange $(LAB)

.PHONY: test
test: setup ## the tests with real hosts, in minutes (TESTS=..., ARGS=... for pytest)
	@$(PYTEST) $(TESTS) -m "not long and not alone" $(SIDE_BY_SIDE) $(ARGS)

# pytest ends with 5 where TESTS or ARGS choose no test of one of the two.
.PHONY: test-long
test-long: setup ## those that take long: builds, downloads, every kernel, cold boots, kills, and what needs the machine for itself
	@$(PYTEST) $(TESTS) -m "long and not alone" $(SIDE_BY_SIDE) $(ARGS) || [ $$? -eq 5 ]
	@$(PYTEST) $(TESTS) -m alone $(ARGS) || [ $$? -eq 5 ]

.PHONY: check
check: setup-check ## linters and unit tests; needs no Docker
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(PYTEST) tests/unit -n $(WORKERS) --dist loadfile $(ARGS)

.PHONY: experiments
experiments: setup ## every claim of the textbooks, on a native host and on a big-endian kernel (ARGS='--on vm-amd64 --kernel trixie')
	@$(TESTBED) experiment run --all $(ARGS)

.PHONY: report
report: setup-python ## one page of HTML of the records in testbed-records: testbed-report.html
	@$(TESTBED) report $(ARGS)

.PHONY: check-report
check-report: setup-check ## look at a report in a headless browser (apt-get install chromium)
	@$(PYTEST) tests/browser $(ARGS)

# A page a claim, made of the experiments and of the records that the unit tests judge; one of them holds the pages to both.
.PHONY: docs/claims
docs/claims:
	@rm -rf $@
	@$(TESTBED) report tests/unit/records --out /dev/null --pages $@

.PHONY: images
images: setup ## build the host images that are missing or changed
	@$(TESTBED) images build

.PHONY: wheel
wheel: setup-python ## build dist/testbed-*.whl, which works without a checkout
	@rm -rf dist
	@$(PYTHON) -m hatchling build -t wheel

.PHONY: test-wheel
test-wheel: setup ## install the wheel in a new virtual environment, and run the tests of examples/ there
	@$(PYTEST) tests/wheel $(ARGS)

.PHONY: bench
bench: setup setup-compose ## measure the speed, figures into a JSON file
	@$(PYTHON) bench/run.py $(ARGS)

.PHONY: setup
setup: ## install what is missing, start Docker if none answers (SETUP=check: only say what is missing)
	@setup/setup.sh python machine

.PHONY: setup-python setup-check setup-compose
setup-python:
	@setup/setup.sh python
setup-check:
	@setup/setup.sh python compilers
setup-compose:
	@setup/setup.sh compose

.PHONY: down
down: ## remove every lab
	@$(TESTBED) down --all

.PHONY: clean
clean: ## remove labs, host images, .venv and caches (not Docker, not Debian packages)
	@if [ -x $(TESTBED) ]; then $(TESTBED) down --all && $(TESTBED) images remove; fi
	@rm -rf .venv .venv.lock dist images/build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

endif

.PHONY: help
help: ## this list
	@echo 'usage: make TARGET'
	@echo
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name what; do printf '  %-12s %s\n' "$$name" "$$what"; done
