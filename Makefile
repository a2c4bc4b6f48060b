# Everything a developer or CI runs. Each target makes what it needs; `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# mypy refuses folders without Python files.
SOURCES := kit hooks ctld craned supervisor cli tests $(patsubst %/,%,$(sort $(dir $(wildcard bench/*.py docs/*.py examples/*.py deploy/*.py))))
PROTO_FILES := $(sort $(wildcard protos/crane/hooks/v1/*.proto))
TEST_DIRS := $(wildcard tests/unit tests/component tests/system tests/wire)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(STAMP) ## Make .venv with the pinned dependencies and an editable install

# Installed without build isolation, so that constraints.txt pins the build backend as well. A new pip, for console scripts that
# import nothing but their program.
# The lock lets two make processes in one tree wait for each other.
$(STAMP): pyproject.toml constraints.txt
	@echo "making $(VENV) (pinned by constraints.txt)"
	@mkdir -p $(VENV)
	@exec 9>$(VENV)/.lock; flock 9; \
	if [ -e $@ ] && [ ! pyproject.toml -nt $@ ] && [ ! constraints.txt -nt $@ ]; then exit 0; fi; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'; \
	$(PYTHON) -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip setuptools hatchling; \
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'; \
	touch $@

.PHONY: lock
lock: ## Renew constraints.txt from the newest versions that pyproject.toml allows
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(PYTHON) -m venv "$$scratch/venv"; \
	"$$scratch/venv/bin/python" -m pip install --quiet --upgrade pip setuptools; \
	"$$scratch/venv/bin/python" -m pip install --quiet --editable '.[dev]'; \
	{ echo '# Every dependency, pinned. Made by make lock.'; \
	  "$$scratch/venv/bin/python" -m pip freeze --all --exclude-editable | LC_ALL=C sort --ignore-case; } > "$$scratch/constraints.txt"; \
	cp "$$scratch/constraints.txt" constraints.txt

# $(call compile_protos,DIRECTORY): messages with their stubs, and service code only where a file declares a service.
define compile_protos
PATH="$(CURDIR)/$(BIN):$$PATH"; \
if [ -n "$(PROTO_FILES)" ]; then \
	python -m grpc_tools.protoc --proto_path=protos --python_out=$(1) --mypy_out=quiet:$(1) $(PROTO_FILES); \
	services=$$(grep --files-with-matches '^service ' $(PROTO_FILES) || true); \
	if [ -n "$$services" ]; then \
		python -m grpc_tools.protoc --proto_path=protos --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $$services; \
	fi; \
fi
endef

.PHONY: proto
proto: $(STAMP) ## Generate the Python code of protos/ into protos/gen
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(call compile_protos,"$$scratch"); \
	mkdir -p protos/gen; rm -rf protos/gen/crane; \
	if [ -d "$$scratch/crane" ]; then cp -R "$$scratch/crane" protos/gen/crane; fi

.PHONY: check
check: format-check lint types contracts buf generated ## Everything CI checks besides the tests

.PHONY: format
format: $(STAMP) ## Format the sources and fix what ruff can fix
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

.PHONY: format-check
format-check: $(STAMP) ## Is everything formatted?
	@$(BIN)/ruff format --check .

.PHONY: lint
lint: $(STAMP) ## Ruff's rules
	@$(BIN)/ruff check .

.PHONY: types
types: $(STAMP) ## mypy --strict
	@$(BIN)/mypy $(SOURCES)

.PHONY: contracts
contracts: $(STAMP) ## Import rules between the components and their layers
	@$(BIN)/lint-imports --no-logo

.PHONY: buf
buf: $(STAMP) ## Lint the wire contracts
	@if [ -n "$(PROTO_FILES)" ]; then $(BIN)/buf lint && echo "buf: $(words $(PROTO_FILES)) files are fine"; else echo "buf: no files"; fi

.PHONY: generated
generated: $(STAMP) ## Is the generated code and documentation up to date?
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; mkdir "$$scratch/crane"; \
	$(call compile_protos,"$$scratch"); \
	mkdir -p protos/gen/crane; \
	diff --recursive --unified --exclude=__pycache__ protos/gen/crane "$$scratch/crane" \
		|| { echo "protos/gen is out of date: make proto"; exit 1; }
	@if [ -e docs/generate.py ]; then $(BIN)/python docs/generate.py --check; fi

.PHONY: docs
docs: $(STAMP) ## Generate the reference pages of docs/
	@$(BIN)/python docs/generate.py

# Tests of whole clusters wait more than they work; those of one file share a cluster.
TEST_WORKERS ?= $(shell echo $$((2 * $$(nproc))))

.PHONY: test
test: $(STAMP) ## Unit, component and system tests
	@$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile -m 'not long' $(PYTEST_ARGS) $(TEST_DIRS)

.PHONY: check-long
check-long: $(STAMP) ## All tests, those that take long too
	@$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile --timeout 1200 $(PYTEST_ARGS) $(TEST_DIRS)

CONFORMANCE_ARGS ?=

.PHONY: conformance
conformance: $(STAMP) ## Compare the profile slurm with a real Slurm, where one is installed
	@$(BIN)/python -m tests.conformance $(CONFORMANCE_ARGS)

BENCH_ARGS ?=

.PHONY: bench
bench: $(STAMP) ## Measure what hooks cost, beside a real Slurm where one is installed
	@$(BIN)/python -m bench --json bench.json --history bench/history.jsonl $(BENCH_ARGS)

.PHONY: bench-quick
bench-quick: $(STAMP) ## Do the measurements run? The figures mean nothing
	@$(BIN)/python -m bench --quick $(BENCH_ARGS)

.PHONY: demo
demo: $(STAMP) ## A controller, two nodes and a failing Prolog, as a timeline
	@$(BIN)/hookctl demo

.PHONY: clean
clean: ## Remove everything that was made, .venv too
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
