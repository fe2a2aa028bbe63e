# Needs python3 (3.11 or newer) and make; each target makes .venv and fills it by itself.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# A stamp is written last, so an install that was interrupted is done again. It carries the
# version of Python: with another PYTHON the environment is made anew.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
MADE    := $(VENV)/.made-with-$(VERSION)
RUNTIME := $(VENV)/.runtime-$(VERSION)
DEV     := $(VENV)/.dev-$(VERSION)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

.PHONY: help
help: ## List these targets
	@echo 'usage: make TARGET [ARGS="..."] [PYTHON=python3.12]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(RUNTIME) ## Survey a source tree with a team of agents; ARGS="--help" lists the options
	@$(BIN)/actorbus demo $(ARGS)

.PHONY: test
test: $(DEV) ## Run the tests; ARGS="-k mailbox" picks some
	@$(BIN)/pytest -q -n auto --maxprocesses 4 -m "not stress and not faults" $(ARGS)

.PHONY: check
check: $(DEV) ## Lint, formatting, types, and which layer may import which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: stress
stress: $(DEV) ## Run the long, heavy tests, one at a time
	@$(BIN)/pytest -m stress $(ARGS)

.PHONY: faults-audit
faults-audit: $(DEV) ## Lock, fill and kill the history's writer, for minutes
	@FAULTS_ROUNDS=20 FAULTS_SECONDS=60 $(BIN)/pytest -q --timeout 600 tests/faults/test_audit.py $(ARGS)

.PHONY: faults
faults: $(DEV) ## Kill, freeze and cut nodes and Redis under load, and count what was lost
	@FAULTS_MESSAGES=100000 FAULTS_AGENTS=1000 FAULTS_SECONDS=300 FAULTS_RATE=4000 FAULTS_EXAMPLES=1000 \
	   $(BIN)/pytest -q --timeout 900 tests/faults/test_redis*.py tests/bus/transports/test_model.py $(ARGS)

.PHONY: soak
soak: $(DEV) ## Run a million messages in ten minutes, and see what grows
	@$(BIN)/python -m tests.faults.soak $(ARGS)

.PHONY: fuzz
fuzz: $(DEV) ## Read 100,000 hostile frames with each reader; ARGS="-k payload" picks one
	@FUZZ_FRAMES=100000 $(BIN)/pytest -q --timeout 900 tests/faults/test_bytes.py $(ARGS)

.PHONY: bench
bench: $(RUNTIME) ## Measure speed beside plain baselines; ARGS="--quick" or ARGS="tell ask"
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: audit-million
audit-million: $(RUNTIME) ## Page through a history of 1,000,000 messages by each filter; ARGS="--url URL"
	@$(BIN)/python -m benchmarks.million $(ARGS)

.PHONY: clean
clean: ## Remove the environment, caches and builds
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip's running commentary becomes a row of dots; its errors go straight to the terminal.
# $(1): what to install, $(2): the words for it.
define install
	@rm -f $@
	@printf 'Installing %s into $(VENV) ' '$(2)'
	@{ $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
	       --constraint constraints.txt --editable '$(1)' && touch $@; } \
	   | while read -r line; do case $$line in Collecting*|Installing*) printf .;; esac; done
	@echo; test -e $@ || { echo 'The install failed; what pip said stands above.' >&2; exit 1; }
endef

$(RUNTIME): pyproject.toml constraints.txt | $(MADE)
	$(call install,.,actorbus)

$(DEV): pyproject.toml constraints.txt | $(MADE)
	$(call install,.[dev],actorbus and its development tools)
	@touch $(RUNTIME)

$(MADE):
	@case '$(VERSION)' in \
	  '') echo "Cannot run $(PYTHON). Install Python 3.11 or newer, or say which one:" \
	        "make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1;; \
	  2.*|3.[0-9]|3.10) echo "actorbus needs Python 3.11 or newer, and $(PYTHON) is $(VERSION)." \
	        "Say which one to use: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1;; \
	esac
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments." \
	    "On Debian and Ubuntu: apt install python$(VERSION)-venv" >&2; exit 1; }
	@echo 'Making $(VENV) with $(PYTHON) ($(VERSION))'
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@
