"""A launched run, as its launcher sees it: asking a variable server."""

import pytest

from distacme import status as status_lib
from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.programs.launchers import supervised_run
from distacme.run import endpoints
from distacme.run import run_directory
from distacme.run import run_state
from distacme.runtime import supervision
from distacme.variables import server


@pytest.fixture(name='serve')
def fixture_serve():
  """Starts a variable server in the place of the last one; returns its state."""
  servers = []

  def serve(port=0, **kwargs):
    for old in servers:
      old.stop(grace_s=0)
    state = run_state.RunState(**kwargs)
    servers.append(server.VariableServer(state, port=port))
    return state, servers[-1].endpoint

  yield serve
  servers[-1].stop(grace_s=0)


@pytest.fixture(name='follow')
def fixture_follow(tmp_path):
  """Returns a function that follows a run whose variable server is there."""

  def follow(endpoint, show=lambda status: None, **settings):
    directory = run_directory.RunDirectory(tmp_path)
    endpoints.write(directory.endpoints, 'variables/0', endpoint)
    program = program_lib.make_program(run_config.RunConfig(**settings))
    return supervised_run.SupervisedRun(program, directory, show)

  return follow


def test_a_worker_is_starting_until_it_has_done_something(serve, follow):
  state, endpoint = serve()
  run = follow(endpoint)
  assert not run.is_starting('learner/0')  # nothing is known of it
  for reports, starting in (
    ([{'state': status_lib.WorkerState.STARTING}], True),
    ([{'state': status_lib.WorkerState.LEARNING, 'counts': {}}], True),
    ([{'counts': {'learner_steps': 0}}], True),
    ([{'counts': {'learner_steps': 1}}, {}], False),
    ([{'state': status_lib.WorkerState.STARTING}], True),  # again
    ([{'metrics': {'loss': 1.0}}, {}], False),
  ):
    for report in reports:
      state.report('learner/0', **report)
    run.refresh()
    assert run.is_starting('learner/0') == starting


def test_who_hangs_in_the_process_of_another_is_seen(serve, follow):
  now = 0.0
  state, endpoint = serve(clock=lambda: now)
  run = follow(endpoint, replay_in_learner=True)
  state.report('replay/0')
  now = 15.0
  state.report('learner/0')
  run.refresh()
  assert 15.0 <= run.silent_s('learner/0') < 25.0
  assert run.silent_s('actor/0') == float('inf')


def test_a_worker_that_worked_before_the_server_restarted_may_restart(
  serve, follow
):
  state, endpoint = serve()
  run = follow(endpoint)
  members = [supervision.Worker('variables/0', *[lambda: None] * 4, None, None)]
  run.attach(members)
  state.report('actor/0', {'env_steps': 16})
  run.refresh()
  state, _ = serve(endpoint.port)
  state.report('actor/0', state=status_lib.WorkerState.ACTING)  # it is blocked
  state.report('actor/1', state=status_lib.WorkerState.STARTING)
  state.report('learner/0', {'learner_steps': 0})
  run.refresh()
  assert run.may_restart('actor/0', 1)
  for name in ('actor/1', 'learner/0'):  # it never did anything
    assert not run.may_restart(name, 1)


@pytest.mark.parametrize(
  'log', [b'\xff\xfe\nTraceback (most recent call last):\n  boom \xff', None]
)
def test_the_log_of_a_worker_may_hold_any_bytes_or_be_gone(log, tmp_path):
  directory = run_directory.RunDirectory(tmp_path)
  program = program_lib.make_program(run_config.RunConfig())
  run = supervised_run.SupervisedRun(program, directory, lambda status: None)
  path = tmp_path / 'log'
  if log is not None:
    path.write_bytes(log)
    directory.warnings.parent.mkdir(parents=True, exist_ok=True)
    directory.warnings.write_bytes(log)
  worker = supervision.Worker('replay/0', lambda: 1, *[print] * 3, path, print)
  run.on_restart(worker, 'ended with exit code 1', 0.5)
  shown = run.finish().shown_failures
  assert len(shown) == 1
  assert ('boom \ufffd' in shown[0]) == (log is not None)


def test_a_status_that_cannot_be_read_does_not_end_the_launcher(
  serve, follow, monkeypatch, caplog
):
  state, endpoint = serve()
  shown = []
  run = follow(endpoint, shown.append)
  unreadable = status_lib.Status(seconds='soon', counts={})
  monkeypatch.setattr(state, 'status', lambda only: unreadable)
  run.refresh()
  assert not shown
  assert 'answered no status: status: seconds: expected float' in caplog.text


def test_a_hurried_run_has_a_summary_with_the_reason_of_the_first_signal(
  tmp_path,
):
  directory = run_directory.RunDirectory(tmp_path)
  shown = []
  program = program_lib.make_program(run_config.RunConfig())
  run = supervised_run.SupervisedRun(program, directory, shown.append)
  run.request_stop(status_lib.StopReason.INTERRUPTED)
  ordinary_s = run.grace_s()
  assert not run.hurried()
  run.hurry()
  assert run.hurried()
  run.request_stop(status_lib.StopReason.TERMINATED)
  assert run.grace_s() < ordinary_s
  status = run.finish()
  assert status.stop.reason == status_lib.StopReason.INTERRUPTED
  assert not status.failures
  assert directory.read_summary().stop == status.stop
  assert shown == [status]
