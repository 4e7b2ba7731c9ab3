"""`distacme record RUN_DIR`: writes episodes of a run's policy as a dataset."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
import dataclasses
import pathlib
import shlex
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import distacme
from distacme.programs.commands import run_flags

if TYPE_CHECKING:
  from distacme import core
  from distacme import status
  from distacme.demonstrations import episodes as episodes_lib
  from distacme.programs import loading

# No worker of a run has so high a number, nor has 'distacme evaluate'.
_STREAM = 1_000_033
_LINE_PERIOD_S = 5.0


def main(arguments: Sequence[str]) -> int:
  """Records the episodes, and prints their returns and how to learn from them."""
  from distacme.runtime import signals

  flags = _parser().parse_args(arguments)
  run_flags.check(flags)
  recorded = record(
    flags.run_dir,
    flags.output,
    flags.episodes,
    flags.seed,
    exploring=flags.exploring,
    **run_flags.of_loading(flags),
  )
  returns = recorded.returns
  if recorded.stopped is not None:
    print(
      f'{recorded.stopped.value}: {len(returns)} of {flags.episodes} episodes '
      'were whole and are kept'
    )
  print(
    f'mean return {sum(returns) / len(returns):.4g} (min {min(returns):.4g}, '
    f'max {max(returns):.4g}) over {run_flags.num_episodes(len(returns))} of '
    f'{recorded.num_steps:,} steps, params version {recorded.params_version}'
    f'{run_flags.cut_off(recorded.cut_off)}'
  )
  dataset = flags.output.resolve()
  print(f'dataset: {dataset}')
  print(
    f'next: distacme train --agent bc --env {shlex.quote(recorded.env)} '
    f'--demonstrations {shlex.quote(str(dataset))}'
  )
  return 0 if recorded.stopped is None else signals.exit_code(recorded.stopped)


def _parser() -> argparse.ArgumentParser:
  """Returns the parser of the command's flags."""
  parser = argparse.ArgumentParser(
    prog='distacme record',
    description='Writes episodes of the best params of a run as a Minari dataset: '
    'of the policy that its evaluations play, or with --exploring of one that '
    'explores as in training. An episode is cut off after '
    'max_eval_episode_steps of the run, and is truncated then.',
  )
  run_flags.add(parser, episodes=50)
  parser.add_argument(
    '--output',
    type=pathlib.Path,
    metavar='DATASET',
    required=True,
    help='folder of the dataset, which must not exist',
  )
  parser.add_argument(
    '--exploring',
    action='store_true',
    help='act as an actor of the run does, not as its evaluator',
  )
  return parser


class Recorded(NamedTuple):
  """The result of recording.

  Attributes:
    returns: of the episodes.
    num_steps: of all episodes.
    cut_off: number of episodes that did not end by themselves.
    params_version: of the policy.
    env: name of the environment.
    stopped: the reason if there are fewer episodes than were asked for.
  """

  returns: list[float]
  num_steps: int
  cut_off: int
  params_version: int
  env: str
  stopped: status.StopReason | None


def record(
  run_dir: pathlib.Path,
  output: pathlib.Path,
  episodes: int,
  seed: int = 0,
  exploring: bool = False,
  **of_loading: Any,
) -> Recorded:
  """Writes a dataset of episodes of a run's policy.

  Ctrl-C ends the recording with the episodes that are whole, if there are any.

  Args:
    run_dir: of the run.
    output: the dataset's folder, which must not exist.
    episodes: to record, at least 1.
    seed: of the environment and of the policy's random choices.
    exploring: whether to act as the run's actors do, rather than its evaluator.
    **of_loading: other arguments of `loading.load`.

  Raises:
    ValueError: as `loading.load`, or if there is something at `output`, or it
      cannot be written.
    ImportError: if Minari is not installed.
    signals.Stopped: if it was to stop before an episode was whole.
  """
  from distacme.demonstrations import dataset_writer
  from distacme.programs import loading
  from distacme.runtime import signals

  dataset_writer.check(output)
  loaded = loading.load(run_dir, **of_loading)
  loaded = loaded._replace(experiment=_reseeded(loaded.experiment, seed))
  config = loaded.experiment.run
  stops: list[status.StopReason] = []
  cut_off = 0
  with (
    signals.StopRequests() as requests,
    dataset_writer.Writer(
      output, loaded.spec, _metadata(loaded, exploring), config.agent
    ) as writer,
  ):
    playing = _Playing(loaded, exploring, lambda: bool(stops))
    progress = _Progress(episodes)
    try:
      with requests.passed_to(stops.append):
        for episode, was_cut_off in playing.episodes():
          with requests.held():
            writer.add(episode)
            cut_off += was_cut_off
          progress.show(writer.num_episodes, writer.num_steps)
          if writer.num_episodes == episodes:
            break
    except signals.Stopped as stopped:  # the second Ctrl-C
      stops.append(stopped.reason)
    finally:
      playing.close()
    done = writer.num_episodes == episodes
    if not writer.num_episodes:
      raise signals.Stopped(stops[0])
  return Recorded(
    writer.returns,
    writer.num_steps,
    cut_off,
    loaded.params.version,
    config.env,
    None if done else stops[0],
  )


def _reseeded(experiment: Any, seed: int) -> Any:
  return dataclasses.replace(
    experiment, run=dataclasses.replace(experiment.run, seed=seed)
  )


def _metadata(loaded: loading.LoadedRun, exploring: bool) -> dict[str, Any]:
  """Returns the origin of the episodes, for the dataset."""
  run = loaded.experiment.run
  # An agent may sample in its evaluations, too.
  greedily = getattr(loaded.experiment.agent, 'evaluate_greedily', True)
  return {
    'distacme_version': distacme.__version__,
    'environment': run.env,
    'agent': run.agent,
    'params_version': loaded.params.version,
    'policy': 'exploring' if exploring else 'greedy' if greedily else 'sampled',
    # Of the environment as a whole: its later episodes have no seed of their own.
    'seed': run.seed,
    'max_episode_steps': run.max_eval_episode_steps,
  }


class _Playing:
  """Plays episodes of a run's policy, in one environment."""

  def __init__(
    self,
    loaded: loading.LoadedRun,
    exploring: bool,
    must_end: Callable[[], bool],
  ):
    """Makes the environment and the policy.

    Args:
      loaded: run, whose seed is that of the episodes.
      exploring: see `record`.
      must_end: returns whether to end in the midst of an episode.
    """
    import numpy as np

    from distacme import environments
    from distacme import types
    from distacme import wiring
    from distacme.acting import params
    from distacme.run import seeding

    experiment = loaded.experiment
    self._made = experiment.make_vector(1, _STREAM)
    self._environment = environments.check_first_episode(self._made)
    self._policy: core.Policy = wiring.make_policy(
      loaded.agent,
      params.LocalParams(loaded.params),
      self._made,
      seeding.actor_key(experiment.seed, _STREAM),
      types.Streams(np.arange(1), 1) if exploring else None,
    )
    self._max_steps = experiment.run.max_eval_episode_steps
    self._must_end = must_end

  def episodes(self) -> Iterator[tuple[episodes_lib.Episode, bool]]:
    """Yields each whole episode, and whether it was cut off."""
    from distacme import types

    timestep = self._environment.reset()
    while True:
      steps = _Steps(timestep)
      over = False
      while not over and steps.count < self._max_steps:
        if self._must_end():
          return
        output = self._policy.act(
          timestep.observation, timestep.step_type == types.FIRST
        )
        timestep = self._environment.step(output.action)
        steps.add(output.action, timestep)
        over = bool(timestep.step_type[0] == types.LAST)
      yield steps.episode(), not over
      # As in evaluations: a step begins the next episode, if one is over.
      timestep = (
        self._environment.step(output.action)
        if over
        else self._environment.reset()
      )

  def close(self) -> None:
    """Closes the environment."""
    self._made.close()


class _Steps:
  """The steps of an episode so far."""

  def __init__(self, first: Any):
    self._observations = [first.observation]
    self._actions: list[Any] = []
    self._rewards: list[Any] = []
    self._discounts: list[Any] = []

  @property
  def count(self) -> int:
    """Steps so far."""
    return len(self._actions)

  def add(self, action: Any, timestep: Any) -> None:
    """Adds an action and its timestep, of a vector of one row."""
    self._observations.append(timestep.observation)
    self._actions.append(action)
    self._rewards.append(timestep.reward)
    self._discounts.append(timestep.discount)

  def episode(self) -> episodes_lib.Episode:
    """Returns the episode."""
    from distacme.demonstrations import episodes

    return episodes.Episode(
      _joined(self._observations),
      _joined(self._actions),
      _joined(self._rewards),
      _joined(self._discounts),
    )


def _joined(rows: Sequence[Any]) -> Any:
  """Returns a nest of [N, ...] of N nests of [1, ...]."""
  import numpy as np
  import tree

  columns = zip(*map(tree.flatten, rows), strict=True)
  return tree.unflatten_as(rows[0], [np.concatenate(c) for c in columns])


class _Progress:
  """Prints a line now and then."""

  def __init__(self, episodes: int):
    self._episodes = episodes
    self._next = time.monotonic() + _LINE_PERIOD_S

  def show(self, episodes: int, steps: int) -> None:
    """Prints a line, if it is time and there is more to come."""
    from distacme.programs.view import terminal

    now = time.monotonic()
    if now >= self._next and episodes < self._episodes:
      self._next = now + _LINE_PERIOD_S
      terminal.say(f'{episodes} of {self._episodes} episodes, {steps:,} steps')
