"""`distacme evaluate RUN_DIR`: plays episodes with the params of a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from distacme.programs import opponents
from distacme.programs.commands import run_flags

if TYPE_CHECKING:
  from distacme.programs import experiment as experiment_lib

_GREEDILY = 'evaluate_greedily'  # a field of a Config
# No worker of a run has so high a number: training never plays these episodes.
_STREAM = 1_000_003


def main(arguments: Sequence[str]) -> int:
  """Plays the episodes and prints their returns."""
  flags = _parser().parse_args(arguments)
  run_flags.check(flags)
  metrics = evaluate(
    flags.run_dir,
    flags.episodes,
    flags.seed,
    video=flags.video,
    sample=flags.sample,
    opponent=flags.opponent,
    svg=flags.svg,
    **run_flags.of_loading(flags),
  )
  print(
    f'mean return {metrics["mean_return"]:.4g} (min '
    f'{metrics["min_return"]:.4g}, max {metrics["max_return"]:.4g}) over '
    f'{run_flags.num_episodes(flags.episodes)}, params version '
    f'{metrics["params_version"]:.0f}'
    f'{run_flags.cut_off(int(metrics["episodes_cut_off"]))}'
  )
  if 'wins' in metrics:
    print(
      f'games: {metrics["wins"]:.0f} won, {metrics["draws"]:.0f} drawn, '
      f'{metrics["losses"]:.0f} lost'
    )
  if flags.video:
    print(f'video of the first: {flags.video.resolve()}')
  if flags.svg:
    print(f'drawing of the first: {flags.svg.resolve()}')
  return 0


def _parser() -> argparse.ArgumentParser:
  """Returns the parser of the command's flags."""
  parser = argparse.ArgumentParser(
    prog='distacme evaluate',
    description='Plays episodes with the best params of a run, as its evaluations '
    'did: greedily, unless evaluate_greedily is off. One is cut off after '
    'max_eval_episode_steps of the run.',
  )
  run_flags.add(parser, episodes=20)
  parser.add_argument(
    '--sample',
    action='store_true',
    help='sample actions from the policy, as in training, not greedily',
  )
  parser.add_argument(
    '--opponent',
    choices=opponents.OPPONENTS,
    help="in games for two, another than the run's (its --opponent)",
  )
  parser.add_argument(
    '--video',
    type=pathlib.Path,
    metavar='FILE',
    help='write a video of the first episode, to an .mp4 or .gif file',
  )
  parser.add_argument(
    '--svg',
    type=pathlib.Path,
    metavar='FILE',
    help="draw the first game, one of pgx's, as an animated .svg file",
  )
  return parser


def evaluate(
  run_dir: pathlib.Path,
  episodes: int,
  seed: int = 0,
  best: bool = True,
  video: pathlib.Path | None = None,
  sample: bool = False,
  opponent: opponents.Opponent | None = None,
  svg: pathlib.Path | None = None,
  **own: Any,
) -> dict[str, float]:
  """Returns the evaluator's metrics of episodes of a run's params.

  Args:
    run_dir: of the run.
    episodes: number of episodes to play, at least 1.
    seed: of the environments, and of the policy's random choices.
    best: see `loading.load_policy`.
    video: file for a video of the first episode, if it is wanted.
    sample: whether actions are sampled from the policy, rather than greedy.
    opponent: in games for two; by default the run's.
    svg: file for a drawing of the first game, if it is wanted.
    **own: other arguments of `loading.load_policy`.

  Raises:
    ValueError: as `loading.load_policy`, or if there can be no video or drawing, the
      agent has no policy to sample from, or the opponent cannot play the game.
    ImportError: if the library that writes videos is not installed.
  """
  from distacme import wiring
  from distacme.acting import evaluator
  from distacme.acting import params
  from distacme.environments import families
  from distacme.programs import loading
  from distacme.programs.view import game_svg
  from distacme.programs.view import video as video_lib
  from distacme.run import run_state
  from distacme.run import seeding
  from distacme.runtime import signals

  if video:
    video_lib.check(video)
  loaded = loading.load(run_dir, best, **own)
  run = loaded.experiment.run
  experiment = dataclasses.replace(
    loaded.experiment,
    run=dataclasses.replace(run, seed=seed, opponent=opponent or run.opponent),
  )
  opponents.check(experiment, loaded.spec)
  if svg:
    game_svg.check(svg, run.env)
  agent = loaded.agent
  if sample:
    experiment = _sampling(experiment)
    agent = experiment.make_agent(loaded.spec)
  state = run_state.RunState()
  rows = evaluator.num_rows(episodes)
  # The same rows with and without a video: other rows would change the returns.
  environment = opponents.evaluated(
    experiment,
    agent,
    families.make_vector(
      experiment.environment or run.env,
      rows,
      families.row_seed(seed, _STREAM),
      searchable=True,
      render=bool(video),
    ),
    _STREAM,
    untrained_seed=run.seed,
  )
  if video:
    environment = video_lib.Filmed(
      environment, video, run.max_eval_episode_steps
    )
  if svg:
    environment = game_svg.Drawn(environment, svg, run.max_eval_episode_steps)
  with signals.StopRequests():
    try:
      wiring.make_evaluator(
        agent,
        environment,
        params.LocalParams(loaded.params),
        state.reporter('evaluator'),
        evaluator.Settings(episodes, run.max_eval_episode_steps),
        key=seeding.actor_key(seed),
      ).evaluate()
    finally:  # at Ctrl-C, too: the frames so far are a whole video
      environment.close()
  return dict(state.status().workers['evaluator'].metrics)


def _sampling(
  experiment: experiment_lib.Experiment,
) -> experiment_lib.Experiment:
  """Returns an experiment whose agent is evaluated as it acts in training.

  Raises:
    ValueError: if the agent's Config has no field for sampling.
  """
  config = experiment.agent
  known = {field.name for field in dataclasses.fields(config)}
  if _GREEDILY not in known:
    raise ValueError(
      f'--sample is for agents whose Config has the field {_GREEDILY}, which '
      f'that of {experiment.run.agent} has not. Leave --sample out.'
    )
  return dataclasses.replace(
    experiment, agent=dataclasses.replace(config, **{_GREEDILY: False})
  )
