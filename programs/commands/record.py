"""`distacme record RUN_DIR`: writes episodes of a run's policy as a dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
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
  if ':' in recorded.env:  # a name, and no function of a program
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
  from distacme.acting import recording
  from distacme.demonstrations import dataset_writer
  from distacme.environments import checks
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
    contextlib.closing(
      loaded.experiment.make_vector(1, _STREAM)
    ) as environment,
  ):
    progress = _Progress(episodes)
    try:
      with requests.passed_to(stops.append):
        for played in recording.play(
          _policy(loaded, environment, exploring),
          checks.check_first_episode(environment),
          config.max_eval_episode_steps,
          must_end=lambda: bool(stops),
        ):
          with requests.held():
            writer.add(played.episode)
            cut_off += played.cut_off
          progress.show(writer.num_episodes, writer.num_steps)
          if writer.num_episodes == episodes:
            break
    except signals.Stopped as stopped:  # the second Ctrl-C
      stops.append(stopped.reason)
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


def _policy(
  loaded: loading.LoadedRun,
  environment: core.VectorEnvironment,
  exploring: bool,
) -> core.Policy:
  """Returns the policy of a run's params, for one environment."""
  import numpy as np

  from distacme import types
  from distacme import wiring
  from distacme.acting import params
  from distacme.run import seeding

  return wiring.make_policy(
    loaded.agent,
    params.LocalParams(loaded.params),
    environment,
    seeding.actor_key(loaded.experiment.seed, _STREAM),
    types.Streams(np.arange(1), 1) if exploring else None,
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
