## make demo     visualize and invert on a small network; results in results/demo
## make test     all tests
## make check    ruff and pyright
## make lock     resolve requirements.lock anew (ARGS=--upgrade raises every version)
## make venv     only create .venv, which demo, test and check do by themselves
## make clean    remove .venv* and caches; results/ stays
##
## ARGS=... is passed on:            make test ARGS="-k targets"
## PYTHON=... chooses the Python of .venv: make test PYTHON=python3.12
## VENV=... is another environment beside it:  make test PYTHON=python3.11 VENV=.venv-3.11

.DEFAULT_GOAL := help
.PHONY: help demo test check lock venv clean replace-venv

ARGS ?=
UV_VERSION := 0.13.8
VENV ?= .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# Exit status 0 on a Python that will do. Names alone are not enough: a pyenv shim may exist and fail.
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
IDENTITY := import sys; print(sys.base_prefix, sys.version)

# Where PYTHON was asked for and the environment was made by another one, it is made again.
REPLACE :=
ifneq ($(origin PYTHON),undefined)
ifneq ($(wildcard $(RUN)),)
ifneq ($(shell "$(PYTHON)" -c '$(IDENTITY)' 2>/dev/null),$(shell $(RUN) -c '$(IDENTITY)' 2>/dev/null))
REPLACE := replace-venv
endif
endif
endif

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if "$$p" -c '$(SUITABLE)' >/dev/null 2>&1; then echo "$$p"; break; fi; done)

# Shell: leave a suitable Python in $$python, or stop.
FIND_PYTHON = python='$(PYTHON)'; \
	if [ -z "$$python" ]; then \
		echo "No Python 3.11, 3.12 or 3.13 (with venv) found as python3.13, python3.12, python3.11" \
			"or python3. Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
		exit 1; \
	fi; \
	if ! "$$python" -c '$(SUITABLE)' >/dev/null 2>&1; then \
		echo "PYTHON=$$python is not a working Python 3.11, 3.12 or 3.13 (with venv)." >&2; \
		exit 1; \
	fi

help:
	@sed -n 's/^## \{0,1\}//p' Makefile

demo: $(STAMP)
	$(RUN) -m benchmarks.demo $(ARGS)

test: $(STAMP)
	$(RUN) -m pytest $(ARGS)

check: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

venv: $(STAMP)

replace-venv:

# An environment that works is kept and brought up to the lock; half a one is made again.
$(STAMP): requirements.lock pyproject.toml $(REPLACE)
	@if [ -n "$(REPLACE)" ] || ! $(RUN) -c 'import pip; $(SUITABLE)' >/dev/null 2>&1; then \
		$(FIND_PYTHON); \
		echo "Creating $(VENV) with $$("$$python" -V)."; \
		"$$python" -m venv --clear $(VENV); \
	fi
	@echo "Installing what requirements.lock pins (about 270 MB the first time)."
	@$(RUN) -m pip install --disable-pip-version-check --no-compile \
		--require-hashes -r requirements.lock
	@$(RUN) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)

lock:
	@if ! .venv-lock/bin/uv --version 2>/dev/null | grep -q ' $(UV_VERSION) '; then \
		$(FIND_PYTHON); \
		"$$python" -m venv --clear .venv-lock; \
		.venv-lock/bin/python -m pip install --quiet uv==$(UV_VERSION); \
	fi
	UV_CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/uv pip compile pyproject.toml --quiet \
		--universal --python-version 3.11 --extra models --extra benchmarks --group dev \
		--generate-hashes --output-file requirements.lock $(ARGS)

clean:
	rm -rf .venv .venv-* build dist *.egg-info .hypothesis .pytest_cache .ruff_cache
	find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
