"""Agents that search as programs: they act by the search, and say how it went."""

import pytest

from tests.programs import launching

SMALL = (
  '--hidden-sizes', '16',
  '--num-simulations', '8',
  '--min-replay-size', '100',
  '--batch-size', '16',
  '--eval-episodes', '4',
  '--eval-period', '300',
  '--num-actors', '2',
  '--max-env-steps', '1200',
  '--max-seconds', '120',
)  # fmt: skip
SEARCHED = {'simulations', 'search_depth', 'root_value', 'searches_per_second'}


@pytest.mark.program
def test_actors_of_a_program_search(tmp_path):
  pytest.importorskip('pgx')
  flags = (
    '--agent',
    'mcts',
    '--opponent',
    'untrained',
    '--envs-per-actor',
    '4',
  )
  with launching.Run(
    tmp_path / 'run', *SMALL, *flags, env='pgx:tic_tac_toe'
  ) as run:
    code, _ = run.wait()
    assert code == 0, run.output
    rows = run.metrics()
    assert run.summary.counts['learner_steps'] > 0
  searched = [row for row in rows if SEARCHED <= row.keys()]
  assert {row['worker'] for row in searched} == {'actor/0', 'actor/1'}
  assert all(row['simulations'] == 8 for row in searched)
  (evaluated, *_) = (row for row in rows if 'losses' in row)
  assert evaluated['wins'] + evaluated['draws'] + evaluated['losses'] == 4


def test_a_search_steps_gymnasium_row_by_row(tmp_path):
  """Five rows and more are otherwise Gymnasium's own vector, which saves none."""
  pytest.importorskip('gymnasium')
  with launching.Run(
    tmp_path / 'run',
    *SMALL[:10],
    *('--max-eval-episode-steps', '30', '--max-env-steps', '600'),
    *('--agent', 'mcts', '--envs-per-actor', '6'),
    env='gymnasium:CartPole-v1',
    mode='local',
  ) as run:
    code, _ = run.wait()
    assert code == 0, run.output
    assert run.summary.counts['learner_steps'] > 0
