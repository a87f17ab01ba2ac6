# Everything a person or CI does here. Each target sets up what it needs: Python 3.11+ and nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed
GPU := .venv-gpu
GPU_STAMP := $(GPU)/.installed
BENCH_ARGS ?=
PIP_ARGS ?=
HOME_DEMO ?= .infaas/demo

.PHONY: help setup peers demo serve test test-unit test-clusters test-autoscaling test-ray-up bench-selection bench-planner bench-start bench-serving bench-live bench-variants bench-gpu \
	bench-simulator bench-headline check format constraints clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 22

setup: $(STAMP)  ## the virtual environment, with everything that the demo, the tests and the checks need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "this Python lacks venv; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --progress-bar off $(PIP_ARGS) -c constraints.txt -e '.[demo,dev]'
	$(BIN)/python -m compileall -q infaas_ray  # pip compiles what it copies; this it links to
	@touch $(STAMP)

peers: $(PEERS_STAMP)  ## the other servers that bench-serving measures, in an environment of their own

$(PEERS_STAMP): benchmarks/serving/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade "pip>=24"
	$(PEERS)/bin/python -m pip install --quiet --progress-bar off $(PIP_ARGS) -r benchmarks/serving/peers.txt
	@touch $(PEERS_STAMP)

demo: setup  ## train, register, serve, query, scale: the whole story in a few minutes
	$(BIN)/infaas demo --home $(HOME_DEMO) --results demo-results

serve: setup  ## start a system on this machine and leave it running (`infaas down` ends it)
	$(BIN)/infaas up
	@echo "try: $(BIN)/infaas list, $(BIN)/infaas status; end it with: $(BIN)/infaas down"

bench-variants: setup  ## generate and profile the variants of two networks, and check what they are worth
	$(BIN)/python -m pip install --quiet --progress-bar off $(PIP_ARGS) -c constraints.txt -e '.[openvino]'
	$(BIN)/python -m benchmarks.variants.run

bench-gpu: $(GPU_STAMP)  ## the same on an NVIDIA GPU, for two networks; writes configs/profiles/
	$(GPU)/bin/python -m benchmarks.gpu.run $(BENCH_ARGS)

$(GPU_STAMP): pyproject.toml benchmarks/gpu/requirements.txt
	@command -v nvidia-smi >/dev/null || { echo "there is no nvidia-smi here: this wants a machine with an NVIDIA GPU"; exit 1; }
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/python -m pip install --quiet --upgrade "pip>=24"
	$(GPU)/bin/python -m pip install --quiet --progress-bar off $(PIP_ARGS) -r benchmarks/gpu/requirements.txt -e .
	$(GPU)/bin/python -m pip install --quiet --progress-bar off $(PIP_ARGS) "tensorrt-cu13>=10.7" || \
		echo "TensorRT cannot be installed here (it comes from NVIDIA's own index); its variants are left out"
	@touch $(GPU_STAMP)

test: setup  ## unit tests, property tests with many examples, runs of plans and policies, integration tests on Ray
	$(BIN)/python -m pytest tests/unit
	$(BIN)/python -m pytest tests/unit -m hypothesis --hypothesis-profile=thorough
	$(BIN)/python -m pytest tests/runs --hypothesis-profile=thorough
	$(BIN)/python -m pytest tests/integration
	$(MAKE) test-clusters

test-clusters: setup  ## machines through Ray's real autoscaler, and beside it `ray up` on a mock EC2
	$(MAKE) --no-print-directory --jobs 2 --output-sync test-autoscaling test-ray-up

test-autoscaling: setup
	$(BIN)/python -m pytest tests/clusters/autoscaling

test-ray-up: setup
	$(BIN)/python -m pytest tests/clusters/test_ray_up.py

test-unit: setup  ## the quick tests: no Ray, no network, no model framework
	$(BIN)/python -m pytest tests/unit

bench-selection: setup  ## how long a decision takes, with 100 and with 10,000 variants
	$(BIN)/python -m benchmarks.selection $(BENCH_ARGS)

bench-simulator: setup  ## a million queries over 100 workers: how long, and in how much memory
	$(BIN)/python -m benchmarks.simulator $(BENCH_ARGS)

bench-headline: setup  ## what serving costs and how well it is served: ours, INFaaS, fixed variants; an hour or two
	$(BIN)/python -m benchmarks.headline $(BENCH_ARGS)

bench-start: setup  ## how soon a replica that is not there yet answers, with shells and without
	$(BIN)/python -m benchmarks.start $(BENCH_ARGS)

bench-planner: setup  ## how long plans and turns of the control loop take, and how good plans are
	$(BIN)/python -m benchmarks.planner $(BENCH_ARGS)

bench-serving: setup peers  ## our system beside its peers; half an hour (BENCH_ARGS="--only noop": less)
	$(BIN)/python -m benchmarks.serving $(BENCH_ARGS)

bench-live: setup  ## a mixed workload on two cores: Ray Serve with one variant, and ours; live against simulated
	$(BIN)/python -m pip install --quiet --progress-bar off $(PIP_ARGS) -c constraints.txt -e '.[openvino]'
	$(BIN)/python -m benchmarks.live $(BENCH_ARGS)

check: setup  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## bring the code into form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints:  ## pin what is installed now (run after an upgrade in a fresh environment)
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:  ## remove the environment and everything made here
	rm -rf $(VENV) $(PEERS) $(GPU) .infaas demo-results .pytest_cache .mypy_cache .ruff_cache .hypothesis
