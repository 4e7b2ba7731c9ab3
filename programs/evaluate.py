"""`distacme evaluate RUN_DIR`: how good the params of a run are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import pathlib

# No worker of a run has so high a number: these are episodes of no training.
_STREAM = 1_000_003


def main(arguments: Sequence[str]) -> int:
  """Plays the episodes and prints their returns."""
  parser = argparse.ArgumentParser(
    prog='distacme evaluate',
    description='Plays greedy episodes with the best params of a run.',
  )
  parser.add_argument(
    'run_dir',
    type=pathlib.Path,
    metavar='RUN_DIR',
    help="what 'distacme train' printed as 'run directory'",
  )
  parser.add_argument(
    '--episodes',
    type=int,
    default=20,
    metavar='N',
    help='how many to play (default: 20)',
  )
  parser.add_argument(
    '--seed',
    type=int,
    default=0,
    metavar='N',
    help='of the environments (default: 0); none plays the episodes of training',
  )
  parser.add_argument(
    '--newest',
    action='store_true',
    help='take the params of the newest checkpoint, not the best',
  )
  parser.add_argument(
    '--video',
    type=pathlib.Path,
    metavar='FILE',
    help='write a video of the first episode, to an .mp4 or .gif file',
  )
  flags = parser.parse_args(arguments)
  for name, least in (('episodes', 1), ('seed', 0)):
    if getattr(flags, name) < least:
      raise ValueError(
        f'{name} must be at least {least}, got {getattr(flags, name)}.'
      )
  metrics = evaluate(
    flags.run_dir,
    flags.episodes,
    flags.seed,
    best=not flags.newest,
    video=flags.video,
  )
  print(
    f'mean return {metrics["mean_return"]:.4g} (min '
    f'{metrics["min_return"]:.4g}, max {metrics["max_return"]:.4g}) over '
    f'{flags.episodes} episode{"s" if flags.episodes > 1 else ""}, params version '
    f'{metrics["params_version"]:.0f}'
  )
  if flags.video:
    print(f'video of the first: {flags.video.resolve()}')
  return 0


def evaluate(
  run_dir: pathlib.Path,
  episodes: int,
  seed: int = 0,
  best: bool = True,
  video: pathlib.Path | None = None,
) -> dict[str, float]:
  """Returns the evaluator's metrics of greedy episodes of a run's params.

  Args:
    run_dir: of the run.
    episodes: to play, at least 1.
    seed: of the environments, and of what is random about the policy.
    best: see `loading.load_policy`.
    video: file for a video of the first episode, if it is wanted.

  Raises:
    ValueError: as `loading.load_policy`, or if there can be no video.
    ImportError: if what writes videos is not installed.
  """
  from distacme import counting
  from distacme import evaluator
  from distacme import params
  from distacme import seeding
  from distacme.programs import loading
  from distacme.programs import video as video_lib

  if video:
    video_lib.check(video)
  loaded = loading.load(run_dir, best)
  experiment = dataclasses.replace(
    loaded.experiment, run=dataclasses.replace(loaded.experiment.run, seed=seed)
  )
  state = counting.RunState()
  rows = evaluator.num_rows(episodes)
  # The same rows with and without a video, or it would change the returns.
  environment = video_lib.make_vector(experiment, rows, _STREAM, video)
  key = seeding.actor_key(seed)
  evaluator.Evaluator(
    environment,
    loaded.agent,
    params.LocalParams(loaded.params),
    state.reporter('evaluator'),
    key=key,
    episodes=episodes,
    period=1,
  ).evaluate()
  environment.close()
  metrics: dict[str, float] = state.status()['workers']['evaluator']['metrics']
  return metrics
