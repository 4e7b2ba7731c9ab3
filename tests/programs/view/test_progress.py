"""The terminal: what a run's status looks like to people."""

import dataclasses
import io

import pytest
from rich import console as rich_console

from distacme.programs.view import progress
from distacme.run import run_state
from distacme.run import status as status_lib


def status():
  """Returns the status of a run with two actors and an evaluator."""
  clock = iter(range(100))
  run = run_state.RunState(
    status_lib.Limits(max_seconds=60.0), clock=lambda: next(clock)
  )
  for index, mean in enumerate((10.0, 20.0)):
    actor = run.reporter(f'actor/{index}')
    metrics = {'episode_return': mean}
    actor.report({'env_steps': 1500}, metrics, status_lib.WorkerState.ACTING)
  evaluator = run.reporter('evaluator/0')
  evaluator.report({}, {'mean_return': 0.0}, status_lib.WorkerState.DONE)
  return run.status()


def test_a_line_says_how_far_the_run_is():
  line = progress.progress_line(status())
  assert 'env 3,000 steps' in line
  assert 'acting return 15 |' in line
  assert 'evaluated return 0 |' in line  # 0 is a return, too
  assert line.endswith('s left')


def test_without_a_terminal_lines_come_now_and_then_and_at_the_end():
  output = io.StringIO()
  with progress.Display(rich_console.Console(file=output)) as shown:
    for _ in range(3):
      shown.show(status())
    solved = status_lib.Stop(status_lib.StopReason.SOLVED)
    shown.show(dataclasses.replace(status(), stop=solved))
  assert output.getvalue().count('env 3,000 steps') == 2


@pytest.mark.parametrize(('share', 'warned'), [(0.97, True), (0.3, False)])
def test_atoms_that_end_before_returns_do_are_told_of(share, warned):
  seen = status()
  seen.workers['actor/0'].metrics['share_at_ends'] = share
  line = progress.progress_line(seen)
  warning = 'critic 97% at the ends of its atoms: returns may reach beyond min_'
  assert (warning in line) == warned
  assert ('atoms' in line) == warned
  assert ('atoms' in str(progress.progress_table(seen).title)) == warned


def test_on_a_terminal_every_worker_has_a_row():
  output = io.StringIO()
  console = rich_console.Console(file=output, force_terminal=True, width=120)
  with progress.Display(console) as shown:
    shown.show(status())
  for name in ('actor/0', 'actor/1', 'evaluator/0', 'acting'):
    assert name in output.getvalue()
