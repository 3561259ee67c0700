# The first call makes .venv and installs into it. Later calls install again only if
# pyproject.toml or the constraints have changed.

PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Keep compiled modules even where a container image turns that off: without them each
# process that a test starts spends six seconds compiling jax's modules.
unexport PYTHONDONTWRITEBYTECODE

# py311, py312, ...: the constraints to use, and the Python version of .venv.
TAG := $(shell $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) and \
         print("py%d%d" % sys.version_info[:2])')
ifeq ($(TAG),)
  $(error $(PYTHON) is missing or older than 3.11; choose another: make PYTHON=python3.12)
endif
PINS := $(wildcard constraints/$(TAG).txt)
# Compiling all of 1.2 GB would double the install time; Python compiles what it imports.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --prefer-binary \
           $(PINS:%=-c %)

# Two processes; the tests of a file share one, and what was made there.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

.PHONY: help demo test test-slow docs lint site lock bench-env clean

help:
	@echo "make demo    train on synthetic people and evaluate, into runs/demo; shows it in report.html"
	@echo "make test    run the tests; make test-slow those that take minutes"
	@echo "make lint    check format, style, imports between folders, and types"
	@echo "make site    build the documentation and the API reference into site/"
	@echo "make docs    write the tables of docs/reliability.md from the tests"
	@echo "make lock    write constraints/$(TAG).txt from the newest releases"
	@echo "make bench-env  make .venv-bench with PyTorch, for python -m benchmarks"
	@echo "make clean   remove the environments and what builds and tests leave, not runs/"
	@echo "Each takes PYTHON=..., for instance: make demo PYTHON=python3.12"

demo: .venv/$(TAG)-demo
	$(BIN)/python -m vireid_jax.main --config configs/demo.py --workdir runs/demo
	$(BIN)/python -m vireid_jax.report --workdir runs/demo

test: .venv/$(TAG)-dev
	$(PYTEST) -m "not slow"

test-slow: .venv/$(TAG)-dev
	$(PYTEST) -m slow

docs: .venv/$(TAG)-dev
	WRITE_DOCS=1 $(BIN)/python -m pytest -m mistakes

lint: .venv/$(TAG)-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

site: .venv/$(TAG)-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Stamps: a .venv of this Python, the demo's packages in it, the developers' packages.
.venv/$(TAG):
	@$(BIN)/python -c 'import pip, sys; \
	  sys.exit("py%d%d" % sys.version_info[:2] != "$(TAG)")' 2>/dev/null \
	  || $(PYTHON) -m venv --clear .venv
	@touch $@

.venv/$(TAG)-demo: .venv/$(TAG) pyproject.toml $(PINS)
	@echo "Installing into .venv: about 1.2 GB, a minute or two."
	@$(if $(PINS),,echo "No constraints for $(TAG): taking the newest releases, untested.")
	$(INSTALL) -e '.[report]'
	@touch $@

.venv/$(TAG)-dev: .venv/$(TAG)-demo
	$(INSTALL) -e '.[dev]'
	@touch $@

lock: venv := $(shell mktemp -d)
lock:
	$(PYTHON) -m venv $(venv)
	$(venv)/bin/python -m pip install --quiet --prefer-binary -e '.[dev]'
	{ echo "# The dev extra and its dependencies; tested on Linux. Made by: make lock"; \
	  $(venv)/bin/python -m pip freeze --all --exclude-editable --exclude pip; } \
	  > constraints/$(TAG).txt
	rm -rf $(venv)

# This index has CPU builds only; set TORCH_INDEX= to use pip's default index.
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
bench-env: .venv-bench/$(TAG)-$(TORCH)

.venv-bench/$(TAG)-$(TORCH):
	$(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --quiet --prefer-binary \
	  $(TORCH_INDEX:%=--extra-index-url %) '$(TORCH)' numpy safetensors onnx onnxscript
	@touch '$@'

clean:
	rm -rf .venv .venv-bench build dist site *.egg-info .hypothesis .import_linter_cache \
	  .mypy_cache .pytest_cache .ruff_cache
