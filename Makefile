# Every target sets up what it needs in a fresh clone. GNU make 3.81 and bash 3.2 are enough.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
DATA ?= $(HOME)/.echomesh
PORT_BASE ?= 7400
WORKERS ?= 3
export PYTHONDONTWRITEBYTECODE ?= 1

.PHONY: help
help: ## Show this list
	@grep -E '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -e 's/:.*## /|/' | \
		while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

.PHONY: setup-run setup-dev setup-engine setup-chart setup-terraform setup-integrations
setup-run:
	@$(PYTHON) scripts/setup.py run
setup-dev:
	@$(PYTHON) scripts/setup.py dev
setup-engine:
	@$(PYTHON) scripts/setup.py engine
setup-chart:
	@$(PYTHON) scripts/setup.py chart
setup-terraform:
	@$(PYTHON) scripts/setup.py terraform
setup-integrations:
	@$(PYTHON) scripts/setup.py integrations

.PHONY: run demo
run: setup-run ## Start the mesh here, play a short conversation, stay up for `echomesh chat`
	@exec $(BIN)/echomesh up --sample --data "$(DATA)" --port-base $(PORT_BASE)
demo: setup-run ## The same, then stop
	@exec $(BIN)/echomesh up --sample --exit --data "$(DATA)" --port-base $(PORT_BASE)

.PHONY: test starved unit test-engine
# One worker waits for whole meshes most of the time, two keep two cores busy with the other files:
# the slowest folders first, so that all end together.
test: setup-dev ## Every test that needs no GPU (WORKERS=3 at a time)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)
starved: setup-dev ## The same with the cores taken away in bursts, as a busy host does (root)
	@$(BIN)/python scripts/starved.py $(MAKE) test
unit: setup-dev ## The fast, pure tests alone
	@$(BIN)/python -m pytest tests/unit $(PYTEST_ARGS)
# Python keeps what it compiled here: each engine is two processes that read all of torch.
test-engine: setup-engine ## vLLM itself, on a CPU, in an environment of its own (6 GB)
	@PYTHONDONTWRITEBYTECODE= .engine-venv/bin/python -m pytest tests/engine --timeout 300 $(PYTEST_ARGS)

.PHONY: images chart-test test-cluster
images: ## Build the services' images with docker or buildah (TAG=, SERVICES=, BUILD_ARGS=)
	@TAG="$(TAG)" SERVICES="$(SERVICES)" BUILD_ARGS="$(BUILD_ARGS)" scripts/images.sh
chart-test: setup-chart ## The chart rendered, validated and scanned; no cluster needed
	@.chart-venv/bin/python -m pytest tests/chart --confcutdir tests/chart $(PYTEST_ARGS)
test-cluster: setup-dev ## The chart on the cluster of KUBECONFIG, under load and faults
	@$(BIN)/python -m pytest tests/cluster --timeout 900 -o timeout_func_only=true --durations 25 $(PYTEST_ARGS)

.PHONY: test-terraform
test-terraform: setup-terraform ## The Terraform modules against a mock cloud; no account needed
	@.terraform-venv/bin/python -m pytest tests/terraform --confcutdir tests/terraform $(PYTEST_ARGS)

.PHONY: test-integrations
test-integrations: setup-dev setup-integrations ## LangChain, LlamaIndex and a fuzzer against a real gateway
	@.integrations-venv/bin/python -m pytest tests/integrations --confcutdir tests/integrations $(PYTEST_ARGS)

.PHONY: test-page
test-page: setup-dev setup-integrations ## The chat page in a real Chromium (skips without one)
	@.integrations-venv/bin/python -m pytest tests/page --confcutdir tests/page --timeout 300 \
		-o timeout_func_only=true --durations 5 $(PYTEST_ARGS)

.PHONY: test-jaeger
test-jaeger: setup-dev ## Traces in the Jaeger of ECHOMESH_JAEGER_OTLP and _QUERY, or of _BINARY
	@$(BIN)/python -m pytest tests/jaeger $(PYTEST_ARGS)

.PHONY: test-sdks
# The first time fetches packages and compiles gRPC for Go: a test's own time is what is limited.
test-sdks: setup-dev ## Each SDK's package against one list of cases and a live mesh (Go and Node where they are)
	@$(BIN)/python -m pytest tests/conformance --timeout 300 -o timeout_func_only=true $(PYTEST_ARGS)

.PHONY: faults cycles mutants
faults: setup-dev ## Kill, freeze, cut off and attack a running mesh: the promises under failure
	@$(BIN)/python -m pytest tests/faults --timeout 300 --durations 25 $(PYTEST_ARGS)
cycles: setup-dev ## Start, stop and kill `echomesh up` again and again (COUNT=100)
	@$(BIN)/python -m tests.faults.cycles --count $(or $(COUNT),100)
mutants: setup-dev ## Sabotage the product one line at a time; the tests must notice
	@$(BIN)/python -m tests.mutants $(MUTANTS)

.PHONY: lint format
lint: setup-dev ## ruff, mypy, import rules, buf lint
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/buf lint
format: setup-dev ## Let ruff format and mend what it can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

.PHONY: proto proto-check
proto: setup-dev ## Generate the stubs (Go's and TypeScript's where they are) and the API reference
	@$(BIN)/python scripts/generate.py
proto-check: proto ## Fail if the generated files are not what protos/ gives
	@git diff --exit-code --stat -- clients docs/api.md
	@test -z "$$(git ls-files --others --exclude-standard clients docs)" || \
		{ echo "generated files are not committed"; exit 1; }

.PHONY: bench bench-peers bench-engine soak
bench: setup-dev ## Measure; results belong in docs/benchmarks.md
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)
bench-peers: setup-dev ## Install what the benchmarks compare with (5 GB, an environment of its own)
	@tests/bench/peers/install.sh
bench-engine: setup-engine ## vLLM in our worker beside `vllm serve`, on a CPU
	@.engine-venv/bin/python -m tests.bench vllm $(BENCH_ARGS)
soak: setup-dev ## Fifty people and random kills for ten minutes (SOAK_ARGS="--minutes 60")
	@$(BIN)/python -m tests.bench soak $(SOAK_ARGS)

.PHONY: lock
lock: setup-dev ## Resolve the requirements anew
	@bash scripts/lock.sh

.PHONY: breaking release-image
breaking: setup-dev ## Fail if the contracts break what the last release promised
	@$(BIN)/buf breaking --against "$$(ls protos/released/*.binpb | sort -V | tail -1)"
release-image: setup-dev ## Keep this version's contracts for later versions to be checked against
	@mkdir -p protos/released
	@$(BIN)/buf build -o "protos/released/echomesh-$$($(BIN)/python -c 'import echomesh; print(echomesh.__version__)').binpb"
