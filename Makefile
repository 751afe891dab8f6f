# make run   set up on a machine that has only Python 3.11 and make, and start
# make test  the same for the whole test suite: ruff, mypy, pytest
# make screenshots  draws the pictures of README and docs anew, with the system's Chromium
#
# PYTHON names another interpreter; everything else is the environment's or .env's (VOCAL_PORT=9000 make run).

VENV ?= .venv
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3 python,$(shell command -v $(name) 2>/dev/null)))
ARGS ?=
# Files of tests at once: one more than there are cores, as they wait for calls in real time half of theirs. More than
# four compete for what they measure. A test that failed is tried once more and told as RERUN: a call in real time does
# not bear a machine that stands still for a moment.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 3 ? n + 1 : 4)))

# A stamp for exactly these requirements: a second start runs no pip at all.
KEY := $(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')
BASE := $(VENV)/base-$(KEY)
DEV := $(VENV)/dev-$(KEY)
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt $(VENV)/bin/python -m pip install -qq

.PHONY: run test lint pytest screenshots install install-dev clean
.DEFAULT_GOAL := run

run: $(BASE)
	@exec $(VENV)/bin/python -m media_server serve $(ARGS)

test: lint pytest

lint: $(DEV)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy

pytest: $(DEV)
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --reruns 1 --reruns-delay 3 $(ARGS)

screenshots: $(DEV)
	$(VENV)/bin/python -m tests.screenshots

install: $(BASE)
install-dev: $(DEV)

$(BASE): | $(VENV)/bin/python
	@echo "installing Vocal Node into $(VENV); this takes a minute or two, once"
	@$(PIP) --editable .
	@rm -f $(VENV)/base-* && touch $@

$(DEV): | $(VENV)/bin/python
	@echo "installing Vocal Node and its tests' tools into $(VENV), once"
	@$(PIP) --editable '.[dev]'
	@rm -f $(VENV)/base-* $(VENV)/dev-* && touch $@ $(BASE)

WANTED := Vocal Node needs Python 3.11 or newer: install it, or name one: make run PYTHON=/path/to/python3.11

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: no Python found. $(WANTED)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "make: $(PYTHON) will not do. $(WANTED)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
		{ rm -f $(VENV)/bin/python*; echo "make: $(PYTHON) cannot make a virtual environment: apt install python3-venv" >&2; exit 1; }

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
