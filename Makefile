# The tasks of the project. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PROTO  := proto/nst/v1/style_transfer.proto
PROTO_BREAKING = for released in proto/released/*.binpb; do $(BIN)/buf breaking --against $$released || exit 1; done
NATIVE := $(foreach suffix,cpp h inc,$(wildcard service/nst_service/engine/native/*.$(suffix)))

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml setup.py $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[server,demo,dev]'
	@touch $@

.PHONY: setup
setup: $(READY) ## Install everything into .venv

.PHONY: demo
demo: $(READY) ## Stylise a photograph with a painted style, through a real server
	$(BIN)/python examples/demo.py

.PHONY: test
test: $(READY) ## Run the tests
	$(BIN)/python -m pytest

.PHONY: chaos
chaos: $(READY) ## Run the randomised tests for long (CHAOS='--seed N' repeats a run)
	$(BIN)/python -m pytest tests/reliability -rP --chaos $(CHAOS)

.PHONY: gallery
gallery: $(READY) ## Make docs/gallery.md and its pictures, one for each option, through a real server
	$(BIN)/python examples/gallery.py

.PHONY: bench
bench: $(READY) ## Compare nst with published programs at 256 px, and time the server (BENCH='...' adds arguments)
	PYTHONPATH=examples $(BIN)/python -m bench $(BENCH)

.PHONY: bench-full
bench-full: $(READY) ## Run the benchmarks at 512 px with more pictures, up to 4096 px (takes hours)
	PYTHONPATH=examples $(BIN)/python -m bench --full $(BENCH)

.PHONY: bench-gpu
bench-gpu: $(READY) ## Time the engine on a GPU against the limit of its matrix units (BENCH='...' adds arguments)
	PYTHONPATH=examples $(BIN)/python -m bench.gpu $(BENCH)

.PHONY: bench-jobs
bench-jobs: $(READY) ## Time what durability costs a job (BENCH='...' adds arguments)
	PYTHONPATH=examples $(BIN)/python -m bench.jobs $(BENCH)

.PHONY: bench-metrics
bench-metrics: $(READY) ## Time what metrics cost a job, and a scrape (BENCH='...' adds arguments)
	PYTHONPATH=examples $(BIN)/python -m bench.metrics $(BENCH)

.PHONY: structure
structure: $(READY) ## Print import graphs, longest functions and longest classes (OTHER=FOLDER for another checkout)
	$(BIN)/python -m bench.structure $(OTHER)

.PHONY: same-bytes
same-bytes: $(READY) ## Check that another checkout gives the same bytes (OTHER=FOLDER, with its native kernel built)
	PYTHONPATH=examples $(BIN)/python -m bench.same_bytes $(OTHER) $(BENCH)

.PHONY: against
against: $(READY) ## Compare speed and memory with another checkout, in pairs (OTHER=FOLDER, BENCH='...' adds arguments)
	PYTHONPATH=examples $(BIN)/python -m bench.against $(OTHER) $(BENCH)

.PHONY: looks
looks: $(READY) ## Judge and measure how results look (BENCH='pairs FOLDER'; BENCH=--help lists the commands)
	PYTHONPATH=examples $(BIN)/python -m bench.looks $(BENCH)

.PHONY: lint
lint: $(READY) ## Check style, types, imports and the contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python client/generate_sync.py --check
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(PROTO_BREAKING)
	$(BIN)/python -m docs.generator --check

.PHONY: format
format: $(READY) ## Format the code and the contract
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write

.PHONY: sync-client
sync-client: $(READY) ## Generate the synchronous client from the asynchronous one
	$(BIN)/python client/generate_sync.py

.PHONY: proto
proto: $(READY) ## Generate the stubs of the contract
	$(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=proto --grpc_python_out=proto \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--mypy_out=proto --mypy_grpc_out=proto $(PROTO)

.PHONY: docs
docs: $(READY) ## Generate the reference pages of the documentation
	$(BIN)/python -m docs.generator

.PHONY: diagram
diagram: ## Draw the architecture (needs graphviz: apt-get install graphviz)
	neato -n2 -Tsvg docs/images/architecture.dot -o docs/images/architecture.svg

.PHONY: proto-breaking
proto-breaking: $(READY) ## Check that the contract still serves the clients of every release
	$(PROTO_BREAKING)

.PHONY: clean
clean: ## Remove the environment and all generated files that are not committed
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .bench build dist
