"""Clients find a server that was started again on another port, or host."""

import contextlib
import signal
import threading

import numpy as np
import pytest

from distacme import status
from distacme.rpc import line as line_lib
from distacme.run import run_state
from distacme.variables import client
from distacme.variables import reporter as reporter_lib
from distacme.variables import server
from distacme.variables import wire


class Moving:
  """A run whose server ends, and is started again at another port."""

  def __init__(self):
    self._server = server.VariableServer(run_state.RunState())
    self.endpoint = self._server.endpoint

  def find(self):
    return self.endpoint

  def end(self):
    self._server.stop(grace_s=0)

  def start(self):
    incarnation = self.endpoint.incarnation + 1
    self._server = server.VariableServer(
      run_state.RunState(), incarnation=incarnation
    )
    self.endpoint = self._server.endpoint


@pytest.fixture(name='moving')
def fixture_moving():
  moving = Moving()
  yield moving
  moving.end()


def test_all_go_on_with_a_server_that_was_started_elsewhere(
  moving, wait_until, caplog
):
  first = moving.endpoint
  learner, actor, idle = (
    client.VariableClient(first, name, find=moving.find)
    for name in ('learner/0', 'actor/0', 'actor/1')
  )
  actor.subscribe()
  idle.subscribe()  # and reports nothing
  reports = learner.reporter(period_s=0.02), actor.reporter(period_s=0.02)
  assert learner.publish(1, {'w': np.zeros(3)})
  assert actor.wait_newer(0, 10) and idle.wait_newer(0, 10)
  moving.end()
  moving.start()
  assert learner.publish(2, {'w': np.ones(3)})
  for subscriber in (actor, idle):
    np.testing.assert_array_equal(
      subscriber.wait_newer(1, 10).params['w'], np.ones(3)
    )
  for reporter in reports:
    reporter.report({'env_steps': 3})
  wait_until(lambda: client.status(moving.endpoint).counts == {'env_steps': 6})
  client.request_stop(moving.endpoint, status.StopReason.SOLVED)
  for reporter in reports:
    wait_until(lambda: reporter.report().stop == 'solved')  # noqa: B023
  for worker in (learner, actor, idle):
    worker.close()
  moved = (
    f'The variable server is at {moving.endpoint.address} now, and was at '
    f'{first.address}.'
  )
  assert caplog.messages.count(moved) == 3


def test_a_restarted_server_elsewhere_gets_the_params_that_it_had(moving):
  learner = client.VariableClient(
    moving.endpoint, 'learner/0', find=moving.find
  )
  learner.reporter(period_s=0.02)
  assert learner.publish(3, {'w': np.arange(3.0)})
  moving.end()
  moving.start()
  actor = client.VariableClient(moving.endpoint, 'actor/0')
  actor.subscribe()
  assert actor.wait_newer(-1, 10).version == 3
  actor.close()
  learner.close()


def test_one_call_is_enough_to_reach_the_server_wherever_it_is(moving):
  with contextlib.closing(
    line_lib.Line(wire.SERVICE, moving.endpoint, moving.find)
  ) as line:
    line.wait_for_server('actor/0', 10)
    moving.end()
    moving.start()
    line.call('Fail', b'{"worker": "actor/0", "detail": "boom"}', 10)
    assert line.endpoint == moving.endpoint
  workers = client.status(moving.endpoint).workers
  assert workers['actor/0'].failure == 'boom'


def test_a_client_that_starts_meanwhile_finds_the_server(moving):
  first = moving.endpoint
  moving.end()
  moving.start()
  actor = client.VariableClient(first, 'actor/0', find=moving.find)
  assert actor.publish(1, {'w': np.zeros(3)})
  actor.close()


def test_a_host_that_is_gone_is_left_by_calls_that_wait_for_it(
  start_process, wait_until, monkeypatch
):
  """No connection breaks: only reports that time out tell of it."""
  process, former = start_process()
  found = [former]
  monkeypatch.setattr(reporter_lib, '_RPC_TIMEOUT_S', 0.5)
  learner, actor = (
    client.VariableClient(former, name, find=lambda: found[-1])
    for name in ('learner/0', 'actor/0')
  )
  actor.subscribe()
  reports = learner.reporter(period_s=0.02), actor.reporter(period_s=0.02)
  assert learner.publish(1, {'w': np.zeros(3)})
  assert actor.wait_newer(0, 10)
  process.send_signal(signal.SIGSTOP)
  publishing = threading.Thread(
    target=learner.publish, args=(2, {'w': np.zeros(3)})
  )
  publishing.start()
  later = server.VariableServer(run_state.RunState())
  found.append(later.endpoint)
  assert actor.wait_newer(1, 30).version == 2
  publishing.join()
  client.request_stop(later.endpoint, status.StopReason.SOLVED)
  for reporter in reports:
    wait_until(lambda: reporter.report().stop == 'solved')  # noqa: B023
  for worker in (learner, actor):
    worker.close()
  later.stop(grace_s=0)


@pytest.mark.parametrize('failure', [None, OSError('stale'), ValueError('odd')])
def test_a_server_that_is_not_found_elsewhere_is_waited_for(
  wait_until, failure
):
  former = server.VariableServer(run_state.RunState())
  endpoint = former.endpoint
  asked = []

  def find():
    asked.append(True)
    if failure:
      raise failure

  actor = client.VariableClient(endpoint, 'actor/0', find=find)
  reporter = actor.reporter(period_s=0.02)
  reporter.report({'env_steps': 1})
  assert reporter.flush()
  former.stop(grace_s=0)
  wait_until(lambda: asked)
  later = server.VariableServer(run_state.RunState(), port=endpoint.port)
  reporter.report({'env_steps': 1})
  wait_until(lambda: not reporter._unanswered)
  assert reporter.flush()
  assert client.status(endpoint).counts == {'env_steps': 1}
  actor.close()
  later.stop(grace_s=0)
