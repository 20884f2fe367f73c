# SPDX-License-Identifier: MIT
# Everything is built and checked in Debian 13 systems of its own (tests/nodectl), so this machine only has to be some
# Debian with root. Progress goes to stderr.

.DEFAULT_GOAL := help
.PHONY: help deb lint test demo bench chaos beta-matrix clean python pytest
.DELETE_ON_ERROR:

TOOLBOX := tests/nodectl toolbox
UNIT_TESTS := $(TOOLBOX) python3 -m pytest tests/unit --numprocesses 2
# Three files at a time, each on a node of its own, on two processors: with four there is no time left for PID 1 of the
# nodes. Files that take longest come first (tests/node/conftest.py).
NODE_TESTS := /usr/bin/python3 -m pytest tests/node --numprocesses 3 --dist loadfile
# For make test: ONLY=unit or ONLY=node, K=expression as of pytest -k, RESUME=1 to leave out what has passed before.
CHOICE := $(if $(K),-k '$(K)')
export RESUME
install = apt-get -qq update >&2 && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install $(1) </dev/null >&2

help: ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 14

deb: python ## build/archy_<version>_all.deb, lintian clean
	@echo 'make deb: building the package in Debian 13' >&2
	@mkdir -p build
	@$(TOOLBOX) debian/build-deb build >&2
	@ls build/archy_*_all.deb

lint: python ## linters only (make test runs them too)
	@$(TOOLBOX) python3 -m pytest tests/unit/test_linters.py

test: pytest ## linters, unit tests, and tests on booted nodes (ONLY=unit|node K=expression RESUME=1)
ifneq ($(ONLY),node)
	@echo 'make test: linters and unit tests' >&2
	@$(UNIT_TESTS) $(CHOICE)$(if $(K)$(RESUME), || [ $$? -eq 5 ])
endif
ifneq ($(ONLY),unit)
	@echo 'make test: tests on booted nodes' >&2
	@$(NODE_TESTS) -m 'sample or not (chaos or matrix)' $(CHOICE)$(if $(K)$(RESUME), || [ $$? -eq 5 ])
endif

demo: python ## boot a node, run Bitcoin and what needs it on regtest, and show them
	@tests/demo

bench: python ## what the generator, a tick and an idle node cost, beside Quadlet and Podman alone
	@tests/bench

chaos: pytest ## do harm to nodes and see them recover; takes long
	@mkdir -p build/chaos
	@ARCHY_CHAOS_RESULTS=build/chaos $(NODE_TESTS) -m chaos

beta-matrix: pytest ## every app through every event of its life, with a table in build/matrix; takes long
	@$(NODE_TESTS) -m matrix --dist loadgroup

clean: ## remove what was built here; test nodes stay (tests/nodectl list)
	@rm -rf build .mypy_cache .pytest_cache .ruff_cache
	@find generator tests -name __pycache__ -prune -exec rm -rf {} +

python:
	@[ -x /usr/bin/python3 ] || { echo 'make: installing python3' >&2 && $(call install,python3); }

pytest: python
	@/usr/bin/python3 -c 'import pytest, xdist, yaml' 2>/dev/null || \
		{ echo 'make: installing python3-pytest' >&2 && $(call install,python3-pytest python3-pytest-xdist python3-yaml); }
