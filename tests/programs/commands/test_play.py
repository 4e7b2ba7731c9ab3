"""`distacme play`: games of a person, whose moves a script types."""

import re

import numpy as np
import pytest

from distacme import types
from distacme.programs import cli
from distacme.programs.commands import play
from distacme.testing import legal_agent

AGENT = legal_agent.__name__


def run(capsys, monkeypatch, typed, *flags):
  """Returns the exit code and the text after lines are typed."""
  lines = iter(typed)

  def read(prompt):
    print(prompt, end='')
    line = next(lines, None)
    if line is None:
      raise EOFError
    print(line)
    return line

  monkeypatch.setattr('builtins.input', read)
  with pytest.raises(SystemExit) as exit_:
    cli.main(['play', *map(str, flags)])
  captured = capsys.readouterr()
  return exit_.value.code, captured.out + captured.err


class First:
  """An agent's policy that takes the first legal cell; values it at 0.25."""

  def act(self, observation, is_first):
    action = observation['legal_actions'].argmax(axis=-1).astype(np.int32)
    return types.ActorOutput(
      action, metrics={'root_value': np.array([0.25], np.float32)}
    )


@pytest.fixture(name='first')
def fixture_first(monkeypatch):
  from distacme import wiring

  monkeypatch.setattr(wiring, 'make_policy', lambda *_, **__: First())


def typing(*moves):
  lines = iter(moves)
  return lambda prompt: next(lines)


def test_a_game_that_is_won(first, game_run_dir, capsys):
  reward = play.play(game_run_dir, read=typing('4', '3', '5'), agent=AGENT)
  assert reward == 1.0
  text = capsys.readouterr().out
  assert 'you are X, the agent is O (params version ' in text
  assert 'the agent plays 0, value +0.25\n\n O 1 2\n 3 X 5\n 6 7 8\n' in text
  assert text.endswith('\n O O .\n X X X\n . . .\n\nyou have won.\n')


def test_a_game_that_is_lost_as_the_second(first, game_run_dir, capsys):
  reward = play.play(
    game_run_dir, begins=False, read=typing('3', '4'), agent=AGENT
  )
  assert reward == -1.0
  text = capsys.readouterr().out
  assert 'you are O, the agent is X' in text
  assert text.endswith('\n X X X\n O O .\n . . .\n\nthe agent has won.\n')


def test_a_game_that_is_drawn(first, game_run_dir, capsys):
  moves = typing('1', '3', '4', '6', '8')
  assert play.play(game_run_dir, read=moves, agent=AGENT) == 0.0
  text = capsys.readouterr().out
  assert text.endswith('\n O X O\n X X O\n X O X\n\nthe game is drawn.\n')


def test_mistakes_are_answered_and_asked_again(first, game_run_dir, capsys):
  prompts = []
  lines = iter(['4', '0', 'centre', '12', ' 3 ', '5'])

  def read(prompt):
    prompts.append(prompt)
    return next(lines)

  assert play.play(game_run_dir, read=read, agent=AGENT) == 1.0
  text = capsys.readouterr().out
  legal = 'Legal moves: 1-3, 5-8; q quits.\n'
  assert f'0 is not legal here. {legal}' in text
  assert f"'centre' is not the number of a move. {legal}" in text
  assert f'12 is not legal here. {legal}' in text
  assert prompts == ['your move (X): '] * 6


@pytest.mark.parametrize('typed', [['q'], ['4', 'QUIT'], [], ['4']])
def test_q_and_the_end_of_input_quit(capsys, monkeypatch, game_run_dir, typed):
  code, text = run(capsys, monkeypatch, typed, game_run_dir, '--agent', AGENT)
  assert code == 0
  assert text.endswith('the game is not over.\n')


def test_the_agent_of_the_run_plays(capsys, monkeypatch, game_run_dir):
  everything = [str(i) for i in range(9)] * 2
  flags = ('--agent', AGENT, '--second', '--seed', 3, '--newest')
  code, text = run(capsys, monkeypatch, everything, game_run_dir, *flags)
  assert code == 0
  moves = re.findall(r'the agent plays (\d)\n', text)
  assert len(set(moves)) == len(moves) >= 3
  assert re.search(
    r'(the game is drawn|you have won|the agent has won)\.\n$', text
  )
  assert max(map(len, text.splitlines())) <= 80


def test_games_for_one_are_refused(capsys, monkeypatch, run_dir):
  code, text = run(capsys, monkeypatch, [], run_dir)
  assert code == 2
  assert text == (
    "distacme: 'distacme.testing.environments:catch' has one player, and nobody "
    "can be played against there. Watch its agent with 'distacme evaluate "
    "--video'.\n"
  )


def test_boards_that_are_not_known_are_refused(
  capsys, monkeypatch, game_run_dir
):
  monkeypatch.setattr('distacme.environments.boards.LAYOUTS', {'hex': None})
  code, text = run(capsys, monkeypatch, [], game_run_dir, '--agent', AGENT)
  assert code == 2
  assert text == (
    "distacme: the board of 'pgx:tic_tac_toe' is not known here, so that it "
    'cannot be shown. Those of these games can: pgx:hex.\n'
  )


def test_one_cannot_be_first_and_second(capsys, monkeypatch, game_run_dir):
  code, text = run(capsys, monkeypatch, [], game_run_dir, '--first', '--second')
  assert code == 2
  assert 'not allowed with argument --first' in text
