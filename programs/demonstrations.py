"""Finds a run's demonstrations, and fills replay with them before anything starts.

This is done once, by the process that launches the run, whatever the mode. Replay
starts from the folder that is written here, until it has a checkpoint of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import pathlib
import shutil
from typing import TYPE_CHECKING, Any

from distacme import core
from distacme import demonstrations
from distacme import specs
from distacme.demonstrations import episodes
from distacme.programs import experiment as experiment_lib
from distacme.programs import given_functions
from distacme.run import notices

if TYPE_CHECKING:
  from distacme.run import run_directory


def find(
  experiment: experiment_lib.Experiment,
) -> demonstrations.Demonstrations | None:
  """Returns a run's `Demonstrations`, None if there are none; reads no episode.

  Raises:
    ValueError: if there is no such function or dataset.
  """
  given = experiment.demonstrations
  name = experiment.run.demonstrations
  if given is None and name:
    if ':' not in name or pathlib.Path(name).exists():
      from distacme.demonstrations import datasets

      return datasets.read(name)
    given = given_functions.load(name)
  if given is None or isinstance(given, demonstrations.Demonstrations):
    return given
  if isinstance(given, (list, tuple)):
    return demonstrations.from_episodes(given)
  if not callable(given):
    raise ValueError(
      f'demonstrations={name!r} is {type(given).__name__}. Give the folder or the '
      'ID of a Minari dataset, what demonstrations.from_episodes returns, or a '
      'function that returns it.'
    )
  return _of_function(given, name)


def _of_function(
  function: Callable[[], Any], name: str
) -> demonstrations.Demonstrations:
  """Returns the demonstrations of a function, which is called when they are read."""

  def read() -> Iterator[demonstrations.Episode]:
    found = function()
    if isinstance(found, demonstrations.Demonstrations):
      yield from found.read()
      return
    if not isinstance(found, Iterable):
      raise ValueError(
        f'{name} returned {type(found).__name__}. Return what '
        'demonstrations.from_episodes returns.'
      )
    for number, each in enumerate(found):
      yield episodes.as_episode(each, number)

  return demonstrations.Demonstrations(name, read)


def check_wanted(
  experiment: experiment_lib.Experiment, agent: core.Agent
) -> None:
  """Checks that there are demonstrations if the agent wants some.

  Raises:
    ValueError: if the agent learns from demonstrations and there are none.
  """
  run = experiment.run
  given = experiment.demonstrations is not None or run.demonstrations
  if agent.replay.tables_of_demonstrations and not given:
    raise ValueError(
      f'{run.agent} learns from demonstrations, and none are given. Add '
      "'--demonstrations DATASET', as 'distacme record' writes one, or "
      "'--demonstrations package.module:function'."
    )


def fill(
  experiment: experiment_lib.Experiment,
  agent: core.Agent,
  spec: specs.EnvironmentSpec,
  directory: run_directory.RunDirectory,
) -> None:
  """Writes replay with the run's demonstrations in it, from where replay starts.

  Does nothing if the run has no demonstrations, or is resumed and has them in its
  directory.

  Raises:
    ValueError: if the demonstrations cannot be read, are not of the environment,
      are too few or too many, or the agent cannot learn from any.
    NotWrittenError: if replay cannot be written.
  """
  if directory.last_step() is not None and directory.demonstrations.exists():
    return
  found = find(experiment)
  if found is None:
    return
  env = experiment.run.env
  if found.environment and found.environment != env:
    notices.warn_once(
      f'{found.source} was recorded in {found.environment}, and the run is in '
      f'{env}.'
    )
  import jax

  from distacme import row_layout
  from distacme.replay import filling

  key = jax.random.key_data(jax.random.key(0))
  state = jax.eval_shape(agent.initial_learner_state, key)
  params = jax.eval_shape(agent.actor_params, state)
  layout = row_layout.row_layout(agent, spec, params)
  held = filling.held(
    found.checked(spec), agent.replay, layout, experiment.run.seed
  )
  if directory.last_step() is None:
    # Of a run that saved nothing else, perhaps with other demonstrations.
    shutil.rmtree(directory.replay, ignore_errors=True)
  filling.save(held, directory.demonstrations)
