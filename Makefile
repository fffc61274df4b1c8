# make install   .venv with .venv/bin/troop
# make demo      solve a bundled bug and grade it; does all its own set-up
# make test      ruff, mypy, import-linter, pytest; docker parts skip, with the reason, where no daemon answers
# make lint      the first three only
# make image     the default sandbox image for docker, also without an image registry
# make clean     .venv and caches

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first Python from 3.11 on that really starts (a version manager's shim may exist without its Python).
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14 /usr/bin/python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= tasks/examples/boltons-bits-length.toml

.PHONY: help install install-dev demo sandbox test lint image clean

help:
	@sed -n 's/^# //p' Makefile | sed '/^The first/q' | grep '^make'

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

# One that is not whole (its making was interrupted, or its Python is gone) is made anew.
ifneq ($(shell $(BIN)/python -c 'import pip; print("whole")' 2>/dev/null),whole)
.PHONY: $(BIN)/python
$(shell rm -f $(VENV)/.installed $(VENV)/.installed-dev)
endif

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "Troop needs Python 3.11 or newer: apt-get install -y python3 python3-venv" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: apt-get install -y python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev,eval]'
	@touch $@ $(VENV)/.installed

# Something to run attempts in: bubblewrap if it works here, else docker with its image, else bubblewrap from apt.
define USE_BUBBLEWRAP
import asyncio, sys
from harness.sandbox.choice import choose_provider
from harness.cache import cache_root
from tasks.errors import TroopError
try:
    asyncio.run(choose_provider("bubblewrap", image=None, cache=cache_root()))
except TroopError as error:
    sys.exit(str(error))
endef
export USE_BUBBLEWRAP

sandbox: install
	@bubblewrap_works() { $(BIN)/python -c "$$USE_BUBBLEWRAP"; }; \
	if complaint=$$(bubblewrap_works 2>&1); then exit 0; fi; \
	if $(BIN)/python -m harness.sandbox.docker.image; then exit 0; fi; \
	if command -v bwrap >/dev/null; then echo "$$complaint" >&2; exit 1; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Neither docker nor bubblewrap can be used here: installing bubblewrap from apt"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends bubblewrap >/dev/null; \
		bubblewrap_works; \
	else \
		echo "Troop needs a sandbox; type: sudo apt-get install -y bubblewrap" >&2; exit 1; \
	fi

demo: install sandbox
	$(BIN)/troop solve $(DEMO) --grade

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two processes share the tests, those of a file stay together; `make test TESTS=` runs them in one.
TESTS = -n 2 --dist loadfile

test: lint
	$(BIN)/python -m pytest $(TESTS)

image: install
	$(BIN)/python -m harness.sandbox.docker.image

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
