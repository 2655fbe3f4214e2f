# One word a chore. `make` alone prints them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# Empty: an import leaves its bytecode, so that only the first one is slow.
export PYTHONDONTWRITEBYTECODE :=
PY := .venv/bin/python
READY := .venv/.ready
EXTRA ?= dev
RUN ?= runs/demo

.PHONY: help setup demo test check soak wall clean

help:  ## print this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10

setup: $(READY)  ## create .venv and install the pinned dependencies (seconds; nothing happens when it is up to date)

$(READY): pyproject.toml constraints.txt
	python3 -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" .venv/bin/uv pip install --quiet --python $(PY) -c constraints.txt -e '.[$(EXTRA)]' \
	  || $(PY) -m pip install --quiet -c constraints.txt -e '.[$(EXTRA)]'
	@touch $@

demo: $(READY)  ## an area in, a resumed CROMA checkpoint out, offline, in RUN=runs/demo (under five minutes on two cores)
	$(PY) examples/demo.py $(RUN)

test: $(READY)  ## run the tests; those that need ../shared skip without it
	$(PY) -m pytest

check: $(READY)  ## formatting, lint, types, architecture, documents, then the tests
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) -m pytest

soak: $(READY)  ## the long versions of the fault tests
	$(PY) -m pytest -m soak

wall: $(READY)  ## install each side alone in its own environment and run its tests: neither needs the other
	examples/wall.sh

clean:  ## remove what make made
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
