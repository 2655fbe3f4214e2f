# One word a chore. `make` alone prints them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# Empty: an import leaves its bytecode, so that only the first one is slow.
export PYTHONDONTWRITEBYTECODE :=
PY := .venv/bin/python
READY := .venv/.ready
ORACLE := .venv-oracle
STAC := .venv-stac
EXTRA ?= dev
RUN ?= runs/demo

.PHONY: help setup demo test check soak wall oracle stac clean

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

# Three workers on two cores: tests of servers, launchers and networks mostly wait. They come first by their names, and not
# last, as few in a file: a worker would be alone with them at the end.
check: $(READY)  ## formatting, lint, types, architecture, documents, then the tests
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

soak: $(READY)  ## the long versions of the fault tests, and every command of the READMEs
	$(PY) -m pytest -m soak

wall: $(READY)  ## install each side alone in its own environment and run its commands: neither needs the other
	examples/wall.sh

oracle: $(ORACLE)/.ready  ## create .venv-oracle with torchgeo, which the tests compare with (1.3 GB; nothing happens when it is up to date)

# torch and torchvision in one resolve: they fit in pairs only.
$(ORACLE)/.ready: tests/oracles/constraints.txt
	python3 -m venv $(ORACLE)
	$(ORACLE)/bin/python -m pip install --quiet --disable-pip-version-check uv
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(ORACLE)/bin/uv pip install --quiet --python $(ORACLE)/bin/python \
	    -r tests/oracles/constraints.txt \
	  || $(ORACLE)/bin/python -m pip install --quiet -r tests/oracles/constraints.txt
	@touch $@

stac: $(STAC)/.ready  ## create .venv-stac with a STAC API server, which the tests ask (0.1 GB; nothing happens when it is up to date)

$(STAC)/.ready: tests/services/constraints.txt
	python3 -m venv $(STAC)
	$(STAC)/bin/python -m pip install --quiet --disable-pip-version-check uv
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(STAC)/bin/uv pip install --quiet --python $(STAC)/bin/python \
	    -r tests/services/constraints.txt \
	  || $(STAC)/bin/python -m pip install --quiet -r tests/services/constraints.txt
	@touch $@

clean:  ## remove what make made
	rm -rf .venv .venv-peers $(ORACLE) $(STAC) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
