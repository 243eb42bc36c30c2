# Two commands: `make reproduce` trains and draws the figure, `make test` runs the test suite.
PYTHON ?= python3
VENV   ?= .venv
RUN    ?= runs/fig6_gp_l-laptop
SMOKE  ?= runs/smoke-$(shell git describe --always --dirty)
BIN    := $(VENV)/bin
DOCS   := .venv-docs
GPU    := .venv-gpu

.PHONY: reproduce test smoke nightly gpu-imports check docs

reproduce: $(VENV)/.cpu
	@if [ -e $(RUN)/state.json ]; then $(BIN)/sftrl resume $(RUN); \
	else $(BIN)/sftrl run recipes/fig6_gp_l.yaml --scale laptop --run-dir $(RUN); fi

test: $(VENV)/.dev
	$(BIN)/python -m pytest

# Every recipe at scale smoke, from data to report; what recipes have in common is run once.
smoke: $(VENV)/.cpu
	$(BIN)/sftrl run all --scale smoke --jobs 2 --run-dir $(SMOKE)

# The Slurm tests run where Debian's slurm-wlm and munge are installed.
nightly: $(VENV)/.dev
	$(BIN)/python -m pytest -m ""
	$(MAKE) smoke
	$(MAKE) gpu-imports

# The extra gpu as it is installed on a GPU node (8 GB of wheels): every module that a GPU run imports is imported.
gpu-imports: $(GPU)/.ready
	$(GPU)/bin/python -m pytest -m "" tests/backends/test_gpu_imports.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation, into site/. An environment of its own: it needs nothing of ours.
docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cpu: $(VENV)/bin/python pyproject.toml constraints/cpu.txt
	$(BIN)/python -m pip install --quiet --constraint constraints/cpu.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints/cpu.txt --editable '.[cpu]'
	@touch $@

$(VENV)/.dev: $(VENV)/.cpu
	$(BIN)/python -m pip install --quiet --constraint constraints/cpu.txt --editable '.[cpu,dev]'
	@touch $@

$(GPU)/.ready: pyproject.toml constraints/gpu.txt
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/python -m pip install --quiet --constraint constraints/gpu.txt --editable '.[gpu,dev]'
	@touch $@

$(DOCS)/.ready: constraints/docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --requirement constraints/docs.txt
	@touch $@
