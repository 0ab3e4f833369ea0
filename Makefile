# Everything a newcomer needs is `make demo` and `make test`. Each installs what it needs into .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
# An environment of the caller's own must not be taken for the project's.
unexport VIRTUAL_ENV
# Behind a proxy of a company its authority is in the system's store, and not among those that uv brings.
export UV_SYSTEM_CERTS ?= 1

UV := $(shell command -v uv 2>/dev/null || echo .venv/bin/uv)
RUN := .venv/bin/
SYNC_FLAGS := --frozen --inexact --quiet
DEMO_EXTRAS := --extra stack --extra openai
TEST_EXTRAS := --extra stack --extra registry --extra openai --extra anthropic --extra google --extra azure

.PHONY: help demo test unit bench up down schemas matrix docs format clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(UV):
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 to 3.13 is needed: install it, or name one with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "Python 3.11 to 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version)"; exit 1; }
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check uv

.PHONY: install-demo install-test
install-demo: $(UV)
	@echo "Installing what is needed into .venv (once) ..."
	@$(UV) sync $(SYNC_FLAGS) --no-dev $(DEMO_EXTRAS)
install-test: $(UV)
	@echo "Installing what is needed into .venv (once) ..."
	@$(UV) sync $(SYNC_FLAGS) $(TEST_EXTRAS)

demo: install-demo ## compare a dozen essays through a real Kafka, live in the browser (DEMO_ARGS="--keep")
	@$(RUN)sluice demo $(DEMO_ARGS)

test: install-test ## everything: format, lint, types, layers, schemas, and all tests
	@$(RUN)ruff format --check --quiet .
	@$(RUN)ruff check --quiet .
	@$(RUN)mypy --no-error-summary
	@$(RUN)pytest $(TEST_ARGS)

unit: install-test ## the tests that need neither Kafka nor a browser
	@$(RUN)pytest -m "not integration and not browser and not chaos" $(TEST_ARGS)

bench: install-test ## what the pipeline costs, against the raw Kafka hop (BENCH_ARGS="--json")
	@$(RUN)python -m bench.overhead $(BENCH_ARGS)

up: install-demo ## a local Kafka and Redis, until Ctrl-C
	@$(RUN)sluice up

down: install-demo ## stop what a crash left behind
	@$(RUN)sluice down

schemas: install-test ## write schemas/avro and schemas/asyncapi.json anew
	@$(RUN)python -m schemas.generate

docs: install-test ## docs/configuration.md and the quotes in the documents anew
	@$(RUN)python -m docs.generate_configuration
	@$(RUN)python -m docs.generate_quotes

matrix: install-test ## docs/provider-matrix.md anew: what every provider ends in, case by case
	@$(RUN)python -m tests.providers.contract.matrix

format: install-test ## put the code into its form
	@$(RUN)ruff format --quiet .
	@$(RUN)ruff check --fix --quiet .

clean: ## remove the environment and the local state
	rm -rf .venv .state
