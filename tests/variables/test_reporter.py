"""Reports reach the run, in its process and across processes."""

import math
import threading
import time

import grpc
import numpy as np
import pytest

from distacme import status
from distacme.run import run_state as run_state_lib
from distacme.variables import client
from distacme.variables import server


@pytest.fixture(params=['in process', 'grpc'])
def line(request):
  """Returns a run's state, and a function that makes a worker's reporter."""
  state = run_state_lib.RunState(status.Limits(max_env_steps=1000))
  if request.param == 'in process':
    yield state, state.reporter
    return
  variable_server = server.VariableServer(state)
  clients = []

  def make(worker):
    clients.append(client.VariableClient(variable_server.endpoint, worker))
    return clients[-1].reporter(period_s=0.02)

  yield state, make
  for made in clients:
    made.close()
  variable_server.stop(grace_s=0)


def test_counts_reach_the_run_once(line, wait_until):
  state, make = line
  actors = [make('actor/0'), make('actor/1')]
  for _ in range(100):
    for actor in actors:
      actor.report({'env_steps': 2})
  wait_until(lambda: state.status().counts == {'env_steps': 400})
  actors[0].report({'env_steps': 1})
  wait_until(lambda: state.status().counts == {'env_steps': 401})


def test_the_directive_tells_the_runs_counts(line, wait_until):
  _, make = line
  actor, learner = make('actor/0'), make('learner')
  actor.report({'env_steps': 7})
  wait_until(lambda: learner.report().counts == {'env_steps': 7})


def test_metrics_and_state_reach_the_run(line, wait_until):
  state, make = line
  make('actor/0').report(metrics={'return': 2}, state=status.WorkerState.ACTING)
  worker = wait_until(lambda: state.status().workers.get('actor/0'))
  wait_until(lambda: state.status().workers['actor/0'].metrics)
  worker = state.status().workers['actor/0']
  assert worker.metrics == {'return': 2.0}
  assert worker.state == status.WorkerState.ACTING


def test_metrics_that_are_not_finite_reach_the_run_and_who_asks(
  connect, variable_server, run_state
):
  reporter = connect().reporter(period_s=60.0)
  metrics = {'loss': math.nan, 'return': -math.inf, 'length': 2.0}
  reporter.report(metrics=metrics)
  assert reporter.flush()
  for status_ in (run_state.status(), client.status(variable_server.endpoint)):
    received = status_.workers['actor/0'].metrics
    np.testing.assert_equal(received, metrics)


def test_a_limit_stops_every_worker(line, wait_until):
  _, make = line
  actor, learner = make('actor/0'), make('learner')
  assert learner.report().stop is None
  actor.report({'env_steps': 1000})
  wait_until(lambda: actor.report().stop == 'step_limit')
  wait_until(lambda: learner.report().stop == 'step_limit')


def test_a_worker_that_fails_stops_every_worker_with_its_traceback(
  line, wait_until
):
  state, make = line
  actor, learner = make('actor/0'), make('learner')
  actor.request_stop(status.StopReason.FAILED, 'Traceback: boom')
  assert actor.report().stop == 'failed'
  wait_until(lambda: learner.report().stop == 'failed')
  stop = state.status().stop
  assert (stop.worker, stop.detail) == ('actor/0', 'Traceback: boom')


def test_a_worker_that_is_done_says_so(line, wait_until):
  state, make = line
  actor = make('actor/0')

  def states():
    workers = state.status().workers
    return {name: worker.state for name, worker in workers.items()}

  actor.report(state=status.WorkerState.ACTING)
  wait_until(lambda: states() == {'actor/0': status.WorkerState.ACTING})
  actor.report(state=status.WorkerState.DONE)
  wait_until(lambda: states() == {'actor/0': status.WorkerState.DONE})


def test_a_worker_that_hangs_has_no_heartbeat(connect, run_state, wait_until):
  reporter = connect().reporter(period_s=0.01)
  reporter.report({'env_steps': 1})
  wait_until(lambda: run_state.status().workers)
  # The reporter's thread goes on sending, though the worker does nothing.
  wait_until(
    lambda: run_state.status().workers['actor/0'].seconds_since_report > 0.2
  )


def test_flush_returns_when_the_run_has_everything(connect, run_state):
  reporter = connect().reporter(period_s=60.0)
  reporter.report({'env_steps': 5}, {'return': 1.0})
  assert reporter.flush()
  assert run_state.status().counts == {'env_steps': 5}


def test_close_sends_what_is_left(variable_server, run_state):
  actor = client.VariableClient(variable_server.endpoint, 'actor/0')
  actor.reporter(period_s=60.0).report({'env_steps': 5})
  actor.close()
  assert run_state.status().counts == {'env_steps': 5}


class LossyNetwork(grpc.UnaryUnaryClientInterceptor):
  """Loses every second report, by turns before and after it is delivered."""

  def __init__(self):
    self.lost_before = self.lost_after = self.passed = 0

  def intercept_unary_unary(self, continuation, details, request):
    if not details.method.endswith('/Report'):
      return continuation(details, request)
    turn = (self.lost_before + self.lost_after + self.passed) % 4
    if turn == 1:
      self.lost_before += 1
      return _Lost()
    call = continuation(details, request)
    call.result()
    if turn == 3:
      self.lost_after += 1
      return _Lost()
    self.passed += 1
    return call


class _Lost(grpc.RpcError):
  def result(self):
    raise self

  def code(self):
    return grpc.StatusCode.UNAVAILABLE

  def details(self):
    return 'lost'


def test_reports_lost_on_the_way_count_once(connect, run_state, wait_until):
  network = LossyNetwork()
  actor = connect()
  line = actor._line
  line._channel = grpc.intercept_channel(line._channel, network)
  reporter = actor.reporter(period_s=0.001)
  total = 0
  while network.lost_before < 10 or network.lost_after < 10:
    reporter.report({'env_steps': 1})
    total += 1
  assert reporter.flush()
  assert run_state.status().counts == {'env_steps': total}
  assert network.passed


@pytest.mark.parametrize('answer', [b'{}', b'[]', b'no JSON', b'{"stop": "?"}'])
def test_answers_of_something_else_end_no_heartbeats(
  connect, run_state, monkeypatch, answer
):
  actor = connect()
  call, odd = actor._line.call, threading.Event()

  def answered(*args):
    if odd.is_set():
      return call(*args)
    odd.set()
    return answer

  monkeypatch.setattr(actor._line, 'call', answered)
  reporter = actor.reporter(period_s=0.001)
  reporter.report({'env_steps': 1})
  assert odd.wait(10)
  assert reporter.flush()
  reporter.report({'env_steps': 1})
  assert reporter.flush()
  assert run_state.status().counts == {'env_steps': 2}


def test_a_worker_started_again_under_its_name_counts_on(connect, run_state):
  for _ in range(2):
    reporter = connect('actor/0').reporter(period_s=60.0)
    reporter.report({'env_steps': 5})
    assert reporter.flush()
  assert run_state.status().counts == {'env_steps': 10}


def test_a_stop_reaches_all_at_once(connect, variable_server):
  # With 60 s between reports, a stop arrives only if the server pushes it.
  reporters = [connect(f'a/{i}').reporter(period_s=60.0) for i in range(8)]
  for reporter in reporters:
    reporter.report()
    assert reporter.flush()
  asked = time.monotonic()
  client.request_stop(
    variable_server.endpoint,
    status.StopReason.INTERRUPTED,
    'Ctrl-C',
    'launcher',
  )
  while not all(r.report().stop == 'interrupted' for r in reporters):
    assert time.monotonic() - asked < 5  # some milliseconds on an idle machine
  stop = client.status(variable_server.endpoint).stop
  assert (stop.detail, stop.worker) == ('Ctrl-C', 'launcher')


def test_the_time_limit_is_noticed_though_no_worker_reports(wait_until):
  state = run_state_lib.RunState(status.Limits(max_seconds=0.3))
  variable_server = server.VariableServer(state)
  actor = client.VariableClient(variable_server.endpoint, 'actor/0')
  stopped = threading.Event()
  state.on_stop(stopped.set)
  actor.reporter(period_s=0.05)
  assert stopped.wait(10)
  actor.close()
  variable_server.stop()


def test_a_killed_server_is_noticed_and_named(start_process, wait_until):
  process, endpoint = start_process()
  actor = client.VariableClient(endpoint, 'actor/0')
  actor.subscribe()
  reporter = actor.reporter(period_s=0.02, lost_after_s=0.5)
  reporter.report({'env_steps': 1})
  assert reporter.flush()
  assert reporter.report().stop is None
  process.kill()
  wait_until(lambda: reporter.report().stop == 'failed')
  assert f'server at {endpoint.address} has not answered for' in reporter.lost
  assert 'UNAVAILABLE' in reporter.lost
  with pytest.raises(ConnectionError, match='did not answer within'):
    client.status(endpoint, timeout_s=0.2)
  closing = time.monotonic()
  actor.close()
  assert time.monotonic() - closing < 2


def test_a_server_that_goes_after_the_stop_is_not_missed(
  start_process, wait_until
):
  process, endpoint = start_process()
  actor = client.VariableClient(endpoint, 'actor/0')
  reporter = actor.reporter(period_s=0.02, lost_after_s=0.1)
  client.request_stop(endpoint, status.StopReason.SOLVED)
  wait_until(lambda: reporter.report().stop)
  process.kill()
  process.wait()
  assert not reporter.flush(timeout_s=0.5)
  assert reporter.report().stop == 'solved'
  assert not reporter.lost
  actor.close()


def test_report_costs_microseconds(connect):
  reporter = connect().reporter()
  repeats = 20_000
  costs = []
  for _ in range(5):
    start = time.perf_counter()
    for _ in range(repeats):
      reporter.report({'env_steps': 1})
    costs.append((time.perf_counter() - start) / repeats)
  assert min(costs) < 5e-6  # of the 10 us that a step may cost in all


def test_too_many_metrics_at_once_are_refused_where_they_are_reported(connect):
  reporter = connect().reporter()
  metrics = {f'{number}': 0.0 for number in range(1001)}
  with pytest.raises(ValueError, match='actor/0 reports 1001 metrics at once'):
    reporter.report(metrics=metrics)


def test_of_more_values_than_a_report_takes_the_newest_arrive(
  connect, run_state
):
  reporter = connect().reporter(period_s=60.0)
  for moment in range(30):
    values = {f'{number}': moment for number in range(1000)}
    reporter.report(metrics=values)
  assert reporter.flush()
  assert run_state.status().workers['actor/0'].metrics == values
