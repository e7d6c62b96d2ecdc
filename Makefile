# Wattprint. `make help` lists the commands; `make demo` and `make test` need Python 3.11+, git and make, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
WORKERS ?= 2
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check bench sim fuzz testnet docs ipfs spec clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/run.stamp ## play the whole story on real meter data, and prove it (under three minutes)
	$(BIN)/wattprint demo $(ARGS)

test: $(VENV)/dev.stamp ## run the whole test suite
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: $(VENV)/dev.stamp ## lint, format, types, architecture: what must hold before the tests run
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest tests/test_architecture.py

bench: $(VENV)/run.stamp ## measure transfers and meter intervals a second, and time to finality
	$(BIN)/wattprint bench transfers $(ARGS)
	$(BIN)/wattprint bench readings $(ARGS)

sim: $(VENV)/dev.stamp ## search for a seed that breaks consensus, for as long as ARGS says
	$(BIN)/python -m tests.simulator $(ARGS)

fuzz: $(VENV)/fuzz.stamp ## hand every decoder what strangers may send, guided by coverage; ARGS="--target wire --seconds 60"
	$(BIN)/python -m tests.fuzz $(ARGS)

testnet: $(VENV)/run.stamp ## start four validators on this machine and stay in front; Ctrl-C stops them
	$(BIN)/wattprint testnet start $(ARGS)

.PHONY: soak
soak: $(VENV)/dev.stamp ## run a test network under load and faults for as long as ARGS="--minutes 60" says, with a picture
	$(BIN)/python -m tests.integration.soak $(ARGS)

docs: $(VENV)/dev.stamp ## check that every link and file the documents name is there
	$(BIN)/python -m pytest tests/test_docs.py

ipfs: tests/integration/ipfs/node_modules/.package-lock.json ## install js-ipfs, the daemon of some tests (245 MB, needs Node 20)

tests/integration/ipfs/node_modules/.package-lock.json: tests/integration/ipfs/package-lock.json
	cd tests/integration/ipfs && npm ci --ignore-scripts --omit=optional --no-audit --no-fund
	@touch $@

spec: $(VENV)/dev.stamp build/spec/node_modules/.bin/quint ## check the formal model and replay its traces (needs Node)
	$(BIN)/python -m pytest tests/consensus/test_spec_traces.py

build/spec/node_modules/.bin/quint: docs/spec/package-lock.json
	mkdir -p build/spec && cp docs/spec/package.json docs/spec/package-lock.json build/spec/
	npm ci --prefix build/spec --no-audit --no-fund
	@touch $@

clean: ## remove what the other commands made here, chain data included
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis testnet demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is as new as the requirements it was made from. run: the program; dev: tests and checks as well.
$(VENV)/run.stamp: requirements.txt pyproject.toml | $(BIN)/python
	$(PIP) install -r requirements.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/run.stamp
	$(PIP) install -r requirements-dev.txt
	@touch $@

$(VENV)/fuzz.stamp: requirements-fuzz.txt $(VENV)/dev.stamp
	$(PIP) install -r requirements-fuzz.txt
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' was not found. Another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $$($(PYTHON) --version 2>&1) was found. Another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make a virtual environment. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "Building $(VENV) (once; about a minute)"
	@$(PYTHON) -m venv $(VENV)
