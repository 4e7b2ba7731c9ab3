# `make help` lists what there is. Everything runs in .venv, made from the lock
# files on first use; PYTHON=/path/to/python3.10 chooses what it is made with and
# ARGS='...' is appended to the command.

BIN := .venv/bin

# What `make train` runs: the README quotes it.
TRAIN := distacme train --agent dqn --env gymnasium:CartPole-v1 \
	--mode processes --num-actors 2 --envs-per-actor 4 \
	--solved-return 475 --max-seconds 600

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
export PYTHON

.PHONY: help setup train test learn lint format lock clean

help:  ## Lists these targets.
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: .venv/.installed  ## Makes .venv (the others do it where needed).

train: setup  ## Trains DQN on CartPole: actors, replay, learner, evaluator as processes.
	@$(BIN)/$(TRAIN) $(ARGS)

test: setup  ## Runs the tests.
	@$(BIN)/pytest $(ARGS)

learn: setup  ## Runs the slow learning checks and writes their scores into the docs.
	@rm -f runs/learning.jsonl
	@$(BIN)/pytest -m learning tests/learning $(ARGS)
	@scripts/score_table runs/learning.jsonl

lint: setup  ## Checks format, style and types.
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@scripts/check_types

format: setup  ## Formats the code and sorts the imports.
	@$(BIN)/ruff check --fix --select I --quiet
	@$(BIN)/ruff format

lock: setup  ## Writes the lock files anew from setup.cfg.
	@scripts/lock $(ARGS)

clean:  ## Removes .venv and what was built; keeps runs/.
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The marks are written last: an interrupted set-up does not count.
.venv/.locked: requirements/build.txt requirements/python3.10.txt scripts/make_venv
	@scripts/make_venv
	@touch $@

.venv/.installed: .venv/.locked setup.cfg pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-index --no-deps --no-build-isolation --editable .
	@touch $@
