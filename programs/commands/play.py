"""`distacme play RUN_DIR`: plays a game for two against a run's agent."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

from distacme.programs.commands import run_flags

if TYPE_CHECKING:
  import numpy as np

  from distacme import core
  from distacme.environments import boards
  from distacme.programs import loading

# No worker of a run has so high a number, nor have the other commands.
_STREAM = 1_000_037
_QUIT = ('q', 'quit')
_FAMILY = 'pgx:'


def main(arguments: Sequence[str]) -> int:
  """Plays one game in the terminal."""
  from distacme.runtime import signals

  flags = _parser().parse_args(arguments)
  run_flags.check(flags)
  with signals.StopRequests():
    play(
      flags.run_dir,
      input,
      begins=not flags.second,
      seed=flags.seed,
      **run_flags.of_loading(flags),
    )
  return 0


def _parser() -> argparse.ArgumentParser:
  """Returns the parser of the command's flags."""
  parser = argparse.ArgumentParser(
    prog='distacme play',
    description='Plays a game for two in the terminal against the best params of a '
    'run, which act as in evaluations. X moves first. Type the number of a move; '
    'q quits.',
  )
  run_flags.add(parser, episodes=None)
  side = parser.add_mutually_exclusive_group()
  side.add_argument(
    '--first', action='store_true', help='you move first (the default)'
  )
  side.add_argument('--second', action='store_true', help='you move second')
  return parser


def play(
  run_dir: pathlib.Path,
  read: Callable[[str], str],
  begins: bool = True,
  seed: int = 0,
  **of_loading: Any,
) -> float | None:
  """Plays one game, and prints it.

  Args:
    run_dir: of the run.
    read: returns the line that is typed after a prompt.
    begins: whether the person moves first.
    seed: of the agent's random choices.
    **of_loading: other arguments of `loading.load`.

  Returns:
    The person's reward; None if the game was not played to its end.

  Raises:
    ValueError: as `loading.load`, or if the run's environment is no game for two,
      or its board cannot be shown.
  """
  from distacme.programs import loading

  loaded = loading.load(run_dir, **of_loading)
  layout = _layout(loaded)
  environment = loaded.experiment.make_vector(1, _STREAM)
  try:
    reward = _Game(loaded, layout, environment, seed, read).play(begins)
  finally:
    environment.close()
  if reward is None:
    print('the game is not over.')
  return reward


def _layout(loaded: loading.LoadedRun) -> boards.Layout:
  """Returns the layout of the run's board.

  Raises:
    ValueError: if the run's environment is no game for two, or not known.
  """
  from distacme import specs
  from distacme.environments import boards

  name = loaded.experiment.run.env
  if not specs.has_two_players(loaded.spec):
    raise ValueError(
      f'{name!r} has one player, and nobody can be played against there. Watch '
      "its agent with 'distacme evaluate --video'."
    )
  layout = boards.LAYOUTS.get(name.removeprefix(_FAMILY))
  if layout is None or not name.startswith(_FAMILY):
    known = ', '.join(_FAMILY + game for game in boards.LAYOUTS)
    raise ValueError(
      f'the board of {name!r} is not known here, so that it cannot be shown. '
      f'Those of these games can: {known}.'
    )
  return layout


class _Position(NamedTuple):
  """A board and the moves of the player who moves next."""

  board: np.ndarray  # [H, W], see `boards.stones`
  legal: np.ndarray  # [num_actions] bool
  first_moves: bool


class _Game:
  """A game of a person against a run's agent."""

  def __init__(
    self,
    loaded: loading.LoadedRun,
    layout: boards.Layout,
    environment: core.VectorEnvironment,
    seed: int,
    read: Callable[[str], str],
  ):
    from distacme import wiring
    from distacme.acting import params
    from distacme.run import seeding

    self._layout = layout
    self._environment = environment
    self._read = read
    self._policy = wiring.make_policy(
      loaded.agent,
      params.LocalParams(loaded.params),
      environment,
      seeding.actor_key(seed, _STREAM),
      streams=None,
    )
    self._version = loaded.params.version

  def play(self, is_persons_turn: bool) -> float | None:
    """Returns the person's reward; None if the person quits."""
    import numpy as np

    from distacme import types

    own, other = 'XO' if is_persons_turn else 'OX'
    print(
      f'you are {own}, the agent is {other} (params version {self._version}). '
      f'{self._layout.rule}'.rstrip()
    )
    timestep = self._environment.reset()
    position = self._position(timestep, first_moves=True)
    total = 0.0
    is_first = np.array([True])  # of the agent's moves in this game
    while timestep.step_type[0] != types.LAST:
      if is_persons_turn:
        asked = self._ask(position, own)
        if asked is None:
          return None
        action: Any = np.array([asked], np.int32)
      else:
        action = self._agents_move(timestep, position, is_first)
        is_first = np.array([False])
      timestep = self._environment.step(action)
      reward = float(timestep.reward[0])
      total += reward if is_persons_turn else -reward
      if timestep.discount[0] <= 0:  # at the end, too
        is_persons_turn = not is_persons_turn
        position = self._position(timestep, not position.first_moves)
      else:
        position = self._position(timestep, position.first_moves)
    self._show(position._replace(legal=np.zeros_like(position.legal)))
    print(_result(total))
    return total

  def _ask(self, position: _Position, sign: str) -> int | None:
    """Returns the move that the person types; None to quit."""
    from distacme.programs.view import board

    self._show(position)
    while True:
      try:
        typed = self._read(f'your move ({sign}): ').strip()
      except EOFError:
        print()
        return None
      if typed.lower() in _QUIT:
        return None
      try:
        return board.read_move(typed, position.legal)
      except ValueError as error:
        print(error)

  def _agents_move(
    self, timestep: Any, position: _Position, is_first: np.ndarray
  ) -> Any:
    """Returns the agent's action [1], and prints it."""
    from distacme.programs.view import board

    output = self._policy.act(timestep.observation, is_first)
    move = board.move_name(int(output.action[0]), position.board, self._layout)
    value = ''
    if 'root_value' in output.metrics:
      value = f', value {output.metrics["root_value"][0]:+.2f}'
    print(f'the agent plays {move}{value}')
    return output.action

  def _show(self, position: _Position) -> None:
    from distacme.programs.view import board

    print(f'\n{board.text(position.board, position.legal, self._layout)}\n')

  def _position(self, timestep: Any, first_moves: bool) -> _Position:
    import numpy as np

    from distacme import specs
    from distacme.environments import boards

    observation = timestep.observation
    return _Position(
      boards.stones(observation['board'][0], first_moves),
      np.asarray(observation[specs.LEGAL_ACTIONS][0]),
      first_moves,
    )


def _result(reward: float) -> str:
  if not reward:
    return 'the game is drawn.'
  return 'you have won.' if reward > 0 else 'the agent has won.'
