# `make help` lists what there is. Everything runs in .venv, made on first use with
# Python 3.10, which brings Launchpad and Reverb on Linux x86-64, or else with the
# newest Python (scripts/find_python). PYTHON=/path/to/python3 chooses another one, and
# ARGS='...' is appended to the command. `make core` and what `make bench` compares
# with have environments of their own.

BIN := .venv/bin
# The Pythons without Launchpad that `make core` runs on: the first there is.
NEWER := 3.14 3.13 3.12

# The Pythons for what `make bench` compares with: the first there is.
RIVALS := 3.11 3.12 3.13

# What `make train` runs: the README quotes it.
TRAIN := distacme train --agent dqn --env gymnasium:CartPole-v1 \
	--mode processes --num-actors 2 --envs-per-actor 4 \
	--solved-return 475 --max-seconds 600

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
export PYTHON
# Containers set it: each of six processes would compile all that it imports, 4 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup train test core learn chaos cluster bench lint format lock clean

help:  ## Lists these targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s%s\n", $$1, $$2 }' \
		$(firstword $(MAKEFILE_LIST))

setup: .venv/.installed  ## Makes .venv (the others do it where needed).

train: setup  ## Trains DQN on CartPole: actors, replay, learner, evaluator as processes.
	@$(BIN)/$(TRAIN) $(ARGS)

test: setup  ## Runs the tests, on Python 3.10 and on a newer one where both are there.
	@if [ ! -e $(BIN)/python3.10 ]; \
	then echo 'SKIPPED: the tests of Launchpad and Reverb: .venv has no Python 3.10' >&2; \
	elif scripts/find_python $(NEWER) >/dev/null 2>&1; \
	then $(MAKE) --no-print-directory .venv-core/.installed; \
	else echo 'SKIPPED: the tests on a newer Python: none of $(NEWER) is there' >&2; fi
	@scripts/run_tests $(ARGS)

# PYTHONSAFEPATH: `python -c` here would import the checkout, not the wheel.
core: .venv-core/.installed  ## Tests the wheel without Launchpad on a newer Python and JAX.
	@PYTEST_TIMEOUT=600 PYTHONSAFEPATH=1 .venv-core/bin/pytest -rs $(ARGS)

learn: setup  ## Runs the slow learning checks and writes their scores into the docs.
	@$(BIN)/pytest -m learning tests/scores $(ARGS)
	@scripts/score_table

chaos: setup  ## Kills workers of programs for minutes, and watches their memory.
	@$(BIN)/pytest -m chaos tests/programs $(ARGS)

cluster: setup  ## Fails nodes of a Slurm cluster that it starts here; needs root and Slurm.
	@$(BIN)/pytest -rs -m 'cluster or program' tests/deploy $(ARGS)

bench: setup  ## Measures each part against its limit; ARGS=--record writes the docs.
	@if scripts/find_python $(RIVALS) >/dev/null 2>&1; \
	then $(MAKE) --no-print-directory .venv-rivals/.installed; \
	else echo 'SKIPPED: Stable-Baselines3 beside ours: none of $(RIVALS) is there' >&2; fi
	@$(BIN)/python -m benchmarks $(ARGS)

lint: setup  ## Checks format, style and types.
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@scripts/check_types

format: setup  ## Formats the code and sorts the imports.
	@$(BIN)/ruff check --fix --select I --quiet
	@$(BIN)/ruff format

lock: setup  ## Writes the lock files anew from setup.cfg.
	@scripts/lock $(ARGS)

clean:  ## Removes the environments and what was built; keeps runs/.
	rm -rf .venv .venv-core .venv-rivals build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

LOCKS := $(wildcard requirements/*.txt)

# The marks are written last: an interrupted set-up does not count.
.venv/.locked: $(LOCKS) scripts/make_venv
	@scripts/make_venv .venv
	@touch $@

.venv-core/.locked: $(LOCKS) scripts/make_venv
	@scripts/make_venv .venv-core $(NEWER)
	@touch $@

# The folders count as well: a module that was deleted leaves no newer file.
SOURCES := $(shell find distacme agents programs deploy -name __pycache__ -prune -o -print)

# setuptools would pack what an earlier build left in build/lib.
.venv-core/.installed: .venv-core/.locked setup.cfg pyproject.toml $(SOURCES)
	@rm -rf build/lib
	@.venv-core/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-index --no-deps --no-build-isolation --force-reinstall .
	@touch $@

.venv/.installed: .venv/.locked setup.cfg pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-index --no-deps --no-build-isolation --editable .
	@touch $@

.venv-rivals/.installed: requirements/rivals.in
	@echo 'Setting up .venv-rivals (once, some minutes) ...' >&2
	@rm -rf .venv-rivals
	@$$(scripts/find_python $(RIVALS)) -m venv .venv-rivals
	@.venv-rivals/bin/python -m pip install --quiet --disable-pip-version-check \
		-r requirements/rivals.in
	@touch $@
