# Everything that is done with a checkout. `make` alone lists the targets.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 3000
BASELINE ?= docs/results

BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
PINS := pyproject.toml constraints.txt
OPS_CPP := $(wildcard $(foreach end,cc h,export/ops/*.$(end) export/ops/*/*.$(end)))
OPS_SOURCES := $(OPS_CPP) $(wildcard $(foreach end,txt map sh,export/ops/*.$(end)))
CPP_SOURCES := $(OPS_CPP) $(wildcard $(foreach end,cc h,training/study/fused/*.$(end)))

# Stamps in .venv, each written as the last line of its recipe: an interrupted set-up leaves none.
VENV := .venv/.created
SERVING := .venv/.serving-installed
EVERYTHING := .venv/.everything-installed
OPS := .venv/.ops-built

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help setup serve test test-slow test-browser test-all lint format bench bench-check peers docs ops constraints clean

help: ## list the targets
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(EVERYTHING) $(OPS) ## install everything into .venv: serving, training, load tests, tests

serve: $(SERVING) $(OPS) ## install what serving needs and serve the bundled model (HOST=, PORT=)
	$(BIN)/crisp serve --host $(HOST) --port $(PORT)

test: setup ## install everything and run the fast tests
	$(BIN)/python -m pytest

test-slow: setup ## the slow tests: training runs, real servers, sanitizers
	$(BIN)/python -m pytest -m "slow and not gpu and not browser"

test-browser: setup ## the page in a headless Chromium (apt install chromium)
	$(BIN)/python -m pytest -m browser

test-all: setup ## the fast and the slow tests
	$(BIN)/python -m pytest -m "not gpu and not browser"

lint: $(EVERYTHING) ## ruff, mypy and clang-format, without changing a file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP_SOURCES)

format: $(EVERYTHING) ## let ruff and clang-format rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_SOURCES)

bench: setup ## the engine against stock ONNX Runtime
	$(BIN)/crisp bench

bench-check: setup ## fail where a ratio dropped beyond noise (BASELINE=, results of this machine)
	mkdir -p results
	$(BIN)/crisp bench --workloads sst-b1,imdb-b1,n512-b1 --peers none --seconds 60 \
	  --json results/bench-check.json
	$(BIN)/crisp loadtest --workload mixed --slo-ms 200 --budget 240 \
	  --json results/loadtest-check.json
	$(BIN)/python -m loadtests.changes results/bench-check.json $(BASELINE)/bench.json
	$(BIN)/python -m loadtests.changes results/loadtest-check.json $(BASELINE)/loadtest.json

peers: $(EVERYTHING) ## install the servers that `crisp loadtest --peers` compares with
	loadtests/peers/setup.sh

docs: $(EVERYTHING) ## write docs/cli.md anew from the commands' help
	$(BIN)/python tests/test_command_line.py > docs/cli.md.tmp
	mv docs/cli.md.tmp docs/cli.md

ops: | $(SERVING) ## compile the operator library, and fail where that fails or it does not load
	export/ops/build.sh --strict
	$(BIN)/python -c 'import sys; from export.op_library import find_op_library as find; \
	  found = find(); sys.exit(None if found.available else found.reason)'

constraints: $(EVERYTHING) ## pin what .venv has now in constraints.txt
	$(BIN)/pip freeze --exclude-editable | sed -E \
	  -e 's/^(torch==[^+]*)\+.*/\1/' \
	  -e 's/^onnxruntime(-gpu)?==(.*)/onnxruntime==\2\nonnxruntime-gpu==\2/' > constraints.txt.tmp
	mv constraints.txt.tmp constraints.txt

clean: ## remove what tests and builds made; .venv, runs/, models/ and results/ stay
	rm -rf build dist export/ops/build export/ops/lib $(OPS)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV):
	@command -v $(PYTHON) >/dev/null || { echo "crisp needs Python 3.11 or newer, and there is no\
	 '$(PYTHON)'; install one, or name it: make PYTHON=/path/to/python3 setup" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "crisp needs Python\
	 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1); name a newer one:\
	 make PYTHON=python3.11 setup" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) cannot make virtual environments;\
	 on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	touch $@

$(SERVING): $(VENV) $(PINS)
	@echo "installing what serving needs into .venv (a few minutes the first time)"
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

# torch by itself first: the exact pin decides which build of it comes (a build for the CPU alone
# counts, where pip finds one) before another package asks for torch in general.
$(EVERYTHING): $(VENV) $(PINS)
	@echo "installing everything into .venv (several minutes the first time)"
	$(PIP) install --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(PIP) install --constraint constraints.txt --editable '.[train,loadtest,dev]'
	touch $(SERVING) $@

# The service runs without the operator library as well, only more slowly: where it cannot be built,
# the script says why and succeeds. `make ops` tries again. The stamp's time is that of the beginning:
# what is edited during the compilation is newer.
$(OPS): $(OPS_SOURCES) | $(SERVING)
	touch $@.begun
	export/ops/build.sh
	mv $@.begun $@
