"""`distacme evaluate --svg`: the first game, drawn by pgx."""

import pytest

from distacme.programs import cli
from distacme.programs.commands import evaluate
from distacme.testing import legal_agent

AGENT = legal_agent.__name__


def run(capsys, *arguments):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['evaluate', *map(str, arguments)])
  captured = capsys.readouterr()
  return exit_.value.code, captured.out + captured.err


def test_the_first_game_is_drawn(capsys, game_run_dir, tmp_path):
  path = tmp_path / 'game.svg'
  flags = ('--agent', AGENT, '--episodes', 2, '--svg', path)
  code, text = run(capsys, game_run_dir, *flags)
  assert code == 0
  assert text.endswith(f'drawing of the first: {path}\n')
  drawn = path.read_text()
  assert drawn.count('class="frame"') in range(6, 11)  # 5 to 9 moves


def test_the_drawing_is_no_longer_than_an_evaluated_game(
  game_run_dir, tmp_path, monkeypatch
):
  from distacme.programs.view import game_svg

  path = tmp_path / 'game.svg'
  made = game_svg.Drawn.__init__
  monkeypatch.setattr(
    game_svg.Drawn, '__init__', lambda self, env, to, _: made(self, env, to, 2)
  )
  evaluate.evaluate(game_run_dir, 1, svg=path, agent=AGENT)
  assert path.read_text().count('class="frame"') == 3


@pytest.mark.parametrize(
  ('name', 'sentence'),
  [
    ('a.gif', "svg must be a .svg file, got '{}/a.gif'. Write for instance"),
    ('nowhere/a.svg', '{}/nowhere is no directory. Make it, or choose another'),
    ('a.svg', "an SVG is drawn by pgx, of a game like 'pgx:connect_four', got"),
  ],
)
def test_what_cannot_be_drawn_is_refused(
  capsys, run_dir, tmp_path, name, sentence
):
  code, text = run(capsys, run_dir, '--svg', tmp_path / name)
  assert code == 2
  assert sentence.format(tmp_path) in text
