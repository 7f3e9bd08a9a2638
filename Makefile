# Everything a person types, and what CI calls. Each target installs what it needs first.

PYTHON ?= python3
BIN := .venv/bin
SETUP := $(PYTHON) scripts/setup.py

.DEFAULT_GOAL := help
.PHONY: help setup check test demo cluster cluster-down bench images keys lock docs format

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'

setup: ## Install the locked Python packages into .venv
	@$(SETUP) base

demo: ## Serve a sample application on this machine (ONCE=1 ends by itself)
	@$(SETUP) base edge
	@$(BIN)/python -m seaway.demo $(if $(ONCE),--once)

check: setup ## Lint, types, import contracts and unit tests; under a minute
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/pytest -q --numprocesses=auto tests/unit tests/contract

test: ## Everything: the checks, and all tests on real parts
	@$(SETUP) base edge lb vip cluster images bench clients
	@$(MAKE) --no-print-directory check
	@$(BIN)/pytest -q --durations=15 tests --ignore=tests/unit --ignore=tests/contract

cluster: ## A real one-node Kubernetes on this machine; kubeconfig at .run/cluster/kubeconfig
	@$(SETUP) base cluster
	@$(BIN)/python -m common.testing.kubernetes up

cluster-down: ## Remove that cluster and everything it made
	@$(SETUP) base
	@$(BIN)/python -m common.testing.kubernetes down

bench: ## Measure against peers in one run; rows in .run/bench.json
	@$(SETUP) base edge lb cluster bench
	@$(BIN)/python -m tests.bench

keys: setup ## Make the keys of an installation in deploy/secrets, where git ignores them
	@$(BIN)/python scripts/nats-keys.py

images: ## Build one image a service with buildah
	@$(SETUP) base images
	@$(BIN)/python scripts/images.py

lock: ## Renew requirements/*.txt
	@$(PYTHON) scripts/lock.py

docs: setup ## Renew the generated documents
	@$(BIN)/python scripts/docs.py
	@$(BIN)/python scripts/deploy.py

format: setup ## Format the code
	@$(BIN)/ruff check --quiet --fix
	@$(BIN)/ruff format --quiet
