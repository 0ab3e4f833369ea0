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

# There is no wheel of llama.cpp, and its whole build takes minutes. Its tests need one library, hardly optimised: a
# minute, and later from uv's cache, where other settings make another wheel. A model in earnest wants the whole:
# `uv sync --extra llama-cpp --reinstall-package llama-cpp-python`.
LLAMA_SETTINGS := build.targets=llama install.targets=install/local cmake.build-type=None \
	$(addprefix cmake.define., CMAKE_SKIP_INSTALL_ALL_DEPENDENCY=ON CMAKE_CXX_FLAGS=-O0 CMAKE_C_FLAGS=-O1 LLAVA_BUILD=OFF \
	LLAMA_BUILD_TOOLS=OFF LLAMA_BUILD_TESTS=OFF LLAMA_BUILD_EXAMPLES=OFF LLAMA_BUILD_SERVER=OFF LLAMA_BUILD_APP=OFF \
	GGML_NATIVE=OFF GGML_LLAMAFILE=OFF GGML_OPENMP=OFF GGML_CPU_REPACK=OFF)
LLAMA_EXTRA := --extra llama-cpp $(addprefix --config-settings-package llama-cpp-python:, $(LLAMA_SETTINGS))
# Most tests wait for Kafka, Redis or a browser, so files run beside each other, in one process more than there are cores;
# each has a stack of its own.
TEST_PROCESSES := --numprocesses $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 3 ? n + 1 : 4))) --dist loadfile --no-loadscope-reorder

# Without a compiler the tests of llama.cpp are skipped; on CI there has to be one.
COMPILER := $(or $(CI), $(shell command -v c++ 2>/dev/null))

.PHONY: help demo test unit bench bench-connectors bench-fanout soak chaos up down schemas matrix docs format clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

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
	@echo "Installing what is needed into .venv (once; the first time llama.cpp is built, for a minute) ..."
	@CMAKE_BUILD_PARALLEL_LEVEL=$$(getconf _NPROCESSORS_ONLN) \
		$(UV) sync $(SYNC_FLAGS) $(TEST_EXTRAS) $(if $(COMPILER), $(LLAMA_EXTRA))

demo: install-demo ## compare a dozen essays through a real Kafka, live in the browser (DEMO_ARGS="--keep")
	@$(RUN)sluice demo $(DEMO_ARGS)

test: install-test ## everything: format, lint, types, layers, schemas, and all tests
	@$(RUN)ruff format --check --quiet .
	@$(RUN)ruff check --quiet .
	@$(RUN)mypy --no-error-summary
	@$(RUN)pytest $(TEST_PROCESSES) $(TEST_ARGS)

unit: install-test ## the tests that need neither Kafka nor a browser
	@$(RUN)pytest -m "not integration and not browser and not chaos" $(TEST_ARGS)

bench: install-test ## what the pipeline costs, against the raw Kafka hop (BENCH_ARGS="--json")
	@$(RUN)python -m bench.overhead $(BENCH_ARGS)

bench-connectors: install-test ## what the connectors cost, against bare SDK calls (BENCH_ARGS="--json")
	@$(RUN)python -m bench.connector_cpu $(BENCH_ARGS)

bench-fanout: install-test ## the live view over thousands of connections, against a bare server (BENCH_ARGS="--json")
	@$(RUN)python -m bench.fanout $(BENCH_ARGS)

soak: install-test ## the live view under churn (SOAK_ARGS="--minutes 30")
	@$(RUN)python -m bench.soak $(SOAK_ARGS)

chaos: install-test ## kill everything in turn under load, and count what is lost (CHAOS_ARGS="--requests 2000 --rounds 6")
	@$(RUN)python -m bench.chaos $(CHAOS_ARGS)

up: install-demo ## a local Kafka and Redis, until Ctrl-C
	@$(RUN)sluice up

down: install-demo ## stop what a crash left behind
	@$(RUN)sluice down

schemas: install-test ## write schemas/avro and schemas/asyncapi.json anew
	@$(RUN)python -m schemas.generate

docs: install-test ## docs/configuration.md and the quotes in the documents anew
	@$(RUN)python -m docs.generate_configuration
	@$(RUN)python -m docs.generate_quotes
	@$(RUN)python -m websocket_bridge.generate_schema

matrix: install-test ## docs/provider-matrix.md anew: what every provider ends in, case by case
	@$(RUN)python -m tests.providers.contract.matrix

format: install-test ## put the code into its form
	@$(RUN)ruff format --quiet .
	@$(RUN)ruff check --fix --quiet .

clean: ## remove the environment and the local state
	rm -rf .venv .state
