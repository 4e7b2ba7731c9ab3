"""Reads a run's params back from the run's directory, to act with them.

Loading needs neither replay nor learner, and no library that only processes of
a program need.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

import jax

from distacme import core
from distacme import specs
from distacme.acting import greedy_policy
from distacme.environments import families
from distacme.programs import checks
from distacme.programs import experiment as experiment_lib
from distacme.programs import given_functions
from distacme.programs import recorded_run
from distacme.programs import trusted_names
from distacme.run import checkpoint
from distacme.run import notices
from distacme.run import run_directory


class LoadedRun(NamedTuple):
  """A run's settings, the agent of the settings, and params of the agent."""

  experiment: experiment_lib.Experiment
  spec: specs.EnvironmentSpec
  agent: core.Agent
  params: core.VersionedParams


def load_policy(
  run_dir: str | os.PathLike[str],
  best: bool = True,
  *,
  env: families.NameOrFactory | None = None,
  network: Any = None,
  agent: str | None = None,
  trust_run_dir: bool = False,
) -> greedy_policy.GreedyPolicy:
  """Returns the greedy policy that a run has learnt.

  Args:
    run_dir: of the run, which may still go on.
    best: whether to take the params of the best evaluation, if there was one,
      rather than those of the newest checkpoint.
    env: the run's environment, as in `distacme.train`, if it is of your own:
      loading runs no code that only `run_dir` names.
    network: the run's network, if it is of your own.
    agent: the module of the run's agent, if it is of your own.
    trust_run_dir: whether to import whatever `run_dir` names.

  Raises:
    ValueError: if `run_dir` is no run, has no params yet, names code that is no
      part of distacme, or was made with other functions than those given here.
  """
  run = load(
    run_dir,
    best,
    env=env,
    network=network,
    agent=agent,
    trust_run_dir=trust_run_dir,
  )
  return greedy_policy.GreedyPolicy(run.agent, run.params, run.spec)


def load(
  run_dir: str | os.PathLike[str],
  best: bool = True,
  *,
  env: families.NameOrFactory | None = None,
  network: Any = None,
  agent: str | None = None,
  trust_run_dir: bool = False,
) -> LoadedRun:
  """Returns a run with its params; see `load_policy`."""
  directory = run_directory.RunDirectory(pathlib.Path(run_dir).resolve())
  given = {'env': env, 'network': network, 'agent': agent}
  given = {part: value for part, value in given.items() if value is not None}
  if not trust_run_dir:
    trusted_names.check(directory.read_config(), directory, given)
  experiment = _experiment(directory, given)
  spec = experiment.environment_spec()
  made = experiment.make_agent(spec)
  return LoadedRun(experiment, spec, made, _params(directory, made, best))


def _experiment(
  directory: run_directory.RunDirectory, given: Mapping[str, Any]
) -> experiment_lib.Experiment:
  """Returns the run's experiment, with the given functions in their fields.

  Demonstrations are left out: what is loaded does not learn.
  """
  config = directory.read_config()
  run = recorded_run.run_config(config, directory)
  if given.get('agent', run.agent) != run.agent:
    raise ValueError(
      f'{directory.path} was made with the agent {run.agent!r}, got '
      f'{given["agent"]!r}. Give the same.'
    )
  names: dict[str, Any] = {'demonstrations': ''}
  functions: dict[str, Any] = {}
  for part in ('env', 'network'):
    recorded, value = getattr(run, part), given.get(part)
    if isinstance(value, str):
      names[part] = value
    elif value is not None:
      functions[part] = value
    elif recorded and ':' not in recorded:
      functions[part] = _import(config, part, directory)
  experiment = experiment_lib.Experiment(
    dataclasses.replace(run, **names),
    recorded_run.agent_config(config, run, directory),
    environment=functions.get('env'),
    network=functions.get('network'),
  )
  _check_functions(config, experiment, directory)
  return experiment


def _import(
  config: Mapping[str, Any], part: str, directory: run_directory.RunDirectory
) -> Any:
  """Returns a function of the run by its import path; a pickle is not trusted.

  Raises:
    ValueError: if there is no path, or it leads nowhere.
  """
  path = recorded_run.import_path(config, part)
  again = f'distacme.load_policy(run_dir, {part}=...)'
  if not path:
    raise ValueError(
      f'the {part} of {directory.path} was a function of a program, '
      f'{config["run"][part]!r}, which cannot be imported by its name, and only '
      f'workers of the run read pickles. Give it again: {again}.'
    )
  try:
    return given_functions.load(path)
  except ValueError as error:
    raise ValueError(
      f'the {part} of {directory.path} is not found: {error} Or give it again: '
      f'{again}.'
    ) from error


def _check_functions(
  config: Mapping[str, Any],
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
) -> None:
  """Refuses another network than the run's; another environment is a warning.

  Loading takes only the spec from an environment, and an environment made for
  watching often has a function of its own.
  """
  now = experiment.as_dict()['functions']
  for part in now:
    (other,) = checks.check_functions(config, {part: now[part]}, directory) or [
      ''
    ]
    if other and part == 'network':
      raise ValueError(
        f'{directory.path} was made with another network: {other}. Give the same.'
      )
    if other:
      notices.warn_once(
        f'{directory.path} was made with another environment: {other}.'
      )


def _params(
  directory: run_directory.RunDirectory, agent: core.Agent, best: bool
) -> core.VersionedParams:
  """Returns the best params if they are wanted and there, else the newest."""
  state = jax.eval_shape(
    agent.initial_learner_state, jax.random.key_data(jax.random.key(0))
  )
  if best:
    params = jax.eval_shape(agent.actor_params, state)
    restored = checkpoint.read(directory.best, params)
    if restored is not None:
      return core.VersionedParams(restored.steps, restored.state)
  restored = checkpoint.read(directory.checkpoints, state)
  if restored is None:
    raise ValueError(
      f'{directory.path} has no params yet: neither {directory.best.name}/ nor '
      f'{directory.checkpoints.name}/ holds a checkpoint. Let the run evaluate '
      'or save first (--eval-period, --checkpoint-period-s).'
    )
  params = jax.jit(agent.actor_params)(restored.state)
  return core.VersionedParams(restored.steps, params)
