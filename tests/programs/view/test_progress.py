"""The terminal: what a run's status looks like to people."""

import dataclasses
import io

import pytest
from rich import console as rich_console

from distacme import status as status_lib
from distacme.programs.view import progress
from distacme.run import run_state

State = status_lib.WorkerState


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


@pytest.mark.parametrize('terminal', [True, False])
def test_the_name_of_a_worker_is_no_markup(terminal):
  run = run_state.RunState()
  run.reporter('[/]').report({'env_steps': 1}, {}, State.ACTING)
  seen = dataclasses.replace(run.status(), restarts={'[/red]': ['ended']})
  output = io.StringIO()
  console = rich_console.Console(
    file=output, force_terminal=terminal, width=200
  )
  with progress.Display(console) as shown:
    shown.show(seen)
  assert '[/red] 1x' in output.getvalue()
  assert ('[/] ' in output.getvalue()) == terminal


@pytest.mark.parametrize(('share', 'warned'), [(0.97, True), (0.3, False)])
def test_atoms_that_end_before_returns_do_are_told_of(share, warned):
  seen = status()
  seen.workers['actor/0'].metrics['share_at_ends'] = share
  line = progress.progress_line(seen)
  warning = 'critic 97% at the ends of its atoms: returns may reach beyond min_'
  assert (warning in line) == warned
  assert ('atoms' in line) == warned
  assert ('atoms' in str(progress.progress_table(seen).title)) == warned


@pytest.mark.parametrize(
  ('state', 'metrics', 'words'),
  [
    (State.WAITING_FOR_PARAMS, {}, 'waiting for params'),
    (State.SERVING, {'size': 12_000}, '12,000 items'),
    (
      State.SERVING,
      {'size': 5, 'failed_saves': 3, 'failed_saves_in_a_row': 1},
      '5 items, not saved',
    ),
    (
      State.SERVING,
      {'size': 5, 'failed_saves': 3, 'failed_saves_in_a_row': 0},
      '5 items',
    ),
    (State.SERVING, {}, 'serving'),
    (State.IDLE, {}, 'idle'),
    (State.IDLE, {'mean_return': 93.24, 'episodes_cut_off': 0}, 'return 93.24'),
    (
      State.IDLE,
      {'mean_return': 5.0, 'episodes_cut_off': 2},
      'return 5, 2 episodes cut off',
    ),
    (State.EVALUATING, {'mean_return': 93.2}, 'evaluating'),
    (None, {'mean_return': 93.2}, ''),
  ],
)
def test_a_worker_is_told_of_by_its_state_and_its_numbers(
  state, metrics, words
):
  worker = status_lib.WorkerStatus(state, metrics=metrics)
  seen = dataclasses.replace(status(), workers={'a/0': worker})
  assert list(progress.progress_table(seen).columns[1].cells) == [words]


@pytest.mark.parametrize(
  ('limits', 'left'),
  [
    (status_lib.Limits(), []),
    (status_lib.Limits(max_env_steps=10_000), ['7,000 env steps left']),
    (status_lib.Limits(max_learner_steps=9), ['9 learner steps left']),
    (
      status_lib.Limits(max_env_steps=1, max_learner_steps=9),
      ['0 env steps left', '9 learner steps left'],
    ),
    (status_lib.Limits(9, 9, max_seconds=60.0), ['50 s left']),
  ],
)
def test_what_is_left_is_told_by_the_limits_that_there_are(limits, left):
  seen = dataclasses.replace(status(), seconds=10.0, limits=limits)
  parts = progress.progress_line(seen).split(' | ')
  assert [part for part in parts if part.endswith('left')] == left


def test_the_end_says_why_and_how_workers_failed():
  stop = status_lib.Stop(status_lib.StopReason.FAILED, 'boom', 'actor/0', 9.0)
  seen = dataclasses.replace(
    status(),
    seconds=10.0,
    stop=stop,
    failures={'actor/0': 'boom', 'learner/0': 'bang', 'replay/0': 'puff'},
    restarts={'actor/1': ['ended with signal 9'] * 2},
    shown_failures=['puff'],
  )
  assert progress.ending(seen).splitlines() == [
    'ended: failed (actor/0) after 10.0 s, 3,000 environment steps, '
    '0 learner steps',
    'boom',
    'bang',
    'replay/0 failed, see above',
    'restarted: actor/1 2x',
  ]


def test_the_end_says_how_good_the_policy_is_unless_the_reason_says_so():
  for reason, lines in (('converged', 2), ('interrupted', 2), ('solved', 1)):
    stop = status_lib.Stop(status_lib.StopReason(reason))
    seen = dataclasses.replace(status(), stop=stop)
    said = progress.ending(seen).splitlines()
    assert len(said) == lines, said
    assert 'last evaluation: mean return ' in said[-1] or lines == 1


def test_a_run_in_which_nobody_acts_shows_no_steps_of_environments():
  seen = dataclasses.replace(
    status(),
    counts={'learner_steps': 7},
    limits=status_lib.Limits(max_learner_steps=9),
  )
  assert 'environment' not in progress.ending(seen)


def test_on_a_terminal_every_worker_has_a_row():
  output = io.StringIO()
  console = rich_console.Console(file=output, force_terminal=True, width=120)
  with progress.Display(console) as shown:
    shown.show(status())
  for name in ('actor/0', 'actor/1', 'evaluator/0', 'acting'):
    assert name in output.getvalue()
