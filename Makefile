# Targets for people; `make help` lists them. Everything runs on this machine only.
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.setup-complete
TESTS ?= tests
WORKERS ?= 3
AREA ?=
SECONDS ?= 600
INPUTS ?= 1000000
ROUNDS ?= 200
KILLS ?= 100
CALLS ?= 100
DIR ?=
# The Python of the target: 3.11 on OpenWrt 24.10.
TARGET_PYTHON ?= 3.11

# Shell scripts of the repository, those of the overlay included (init scripts have no suffix).
SHELL_SCRIPTS = .ci/run $(wildcard scripts/*.sh)
OVERLAY_SCRIPTS = $(shell find files package tests/package/openwrt/sbin -type f ! -name Makefile \
	-exec grep -lE -m1 '^(\#!/bin/sh|\# shellcheck shell=sh)' {} + 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help setup test test-slow lint demo bench soak fuzz soak-calls soak-files soak-database soak-upgrade clean ipk firmware-overlay

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian packages, .venv, mongod and Asterisk in a cache
	bash scripts/setup.sh

$(READY): pyproject.toml scripts/setup.sh scripts/get-mongod.sh scripts/get-asterisk.sh \
		scripts/get-python-sources.sh scripts/paths.sh
	bash scripts/setup.sh

test: lint ## linters and all tests, on real parts (TESTS=tests/unit for a part of them)
	$(PYTHON) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --reruns 1 --reruns-delay 2 $(TESTS)

test-slow: $(READY) ## the tests that `make test` leaves out for their length (5 min)
	$(PYTHON) -m pytest -m slow $(TESTS)

lint: $(READY) ## ruff, mypy, shellcheck
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	shellcheck -x $(SHELL_SCRIPTS)
	@# OpenWrt's ash has `local`, and rc.common uses variables that other files set.
	@scripts="$(OVERLAY_SCRIPTS)"; if [ -n "$$scripts" ]; then \
		echo "shellcheck -s dash $$scripts"; \
		shellcheck -s dash -e SC1091,SC2034,SC3043,SC3060 $$scripts; fi

demo: $(READY) ## a whole cluster on this machine: failover, takeover of live calls, figures
	$(PYTHON) -m controlone_ha.lab.demo

bench: $(READY) ## figures beside their anchors (AREA=foundation, files, database, …)
	$(PYTHON) -m controlone_ha.lab.bench $(AREA)

soak: $(READY) ## random faults in the simulator for as long as told (SECONDS=3600)
	$(PYTHON) -m tests.simulation --schedules 1000000000 --seconds $(SECONDS) --seed $$(date +%s)

soak-files: $(READY) ## `ha` killed again and again while files change, on real nodes (ROUNDS=200)
	$(PYTHON) -m tests.soak.file_kills $(ROUNDS)

soak-database: $(READY) ## three databases under random faults, on real mongods (ROUNDS=200)
	$(PYTHON) -m tests.soak.database_faults $(ROUNDS)

soak-upgrade: $(READY) ## every node replaced in turn under live calls (CALLS=100)
	$(PYTHON) -m tests.soak.rolling_upgrade $(CALLS)

soak-calls: $(READY) ## live calls while servers are killed at random moments (KILLS=100)
	$(PYTHON) -m tests.soak.call_kills $(KILLS)

fuzz: $(READY) ## what a stranger may send, mutated: every parser, INPUTS=1000000 each
	$(PYTHON) -m tests.fuzz --inputs $(INPUTS) --seed $$(date +%s)

ipk: $(READY) ## OpenWrt packages and their feed in build/ipk (TARGET_PYTHON=3.11)
	bash scripts/get-python-sources.sh $(PYTHON)
	$(PYTHON) scripts/packages/build.py build/ipk --python $(TARGET_PYTHON)

firmware-overlay: $(READY) ## FILES and PACKAGES for an image builder in DIR (TARGET_PYTHON=3.11)
	@test -n "$(DIR)" || { echo "make firmware-overlay DIR=…" >&2; exit 2; }
	bash scripts/get-python-sources.sh $(PYTHON)
	$(PYTHON) scripts/packages/firmware.py $(DIR) --python $(TARGET_PYTHON)

clean: ## remove what was built, not .venv and not the cache
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
