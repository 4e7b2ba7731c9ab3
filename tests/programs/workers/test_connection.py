"""A worker's line to its run."""

import contextlib
import threading

import numpy as np
import pytest

from distacme import status as status_lib
from distacme.programs.workers import connection
from distacme.run import endpoints
from distacme.run import run_state
from distacme.variables import client
from distacme.variables import server


@contextlib.contextmanager
def connected(tmp_path):
  """Yields a run's state, a client of the run's server, and an evaluator's line."""
  state = run_state.RunState()
  with contextlib.ExitStack() as stack:
    service = server.VariableServer(state)
    stack.callback(service.stop)
    endpoints.write(tmp_path, 'variables/0', service.endpoint)
    learner = client.VariableClient(service.endpoint, 'learner/0')
    stack.callback(learner.close)
    line = connection.Connection('evaluator/0', tmp_path)
    stack.callback(line.close)
    yield state, learner, line


@pytest.mark.parametrize(
  ('reason', 'has_params'),
  [
    (status_lib.StopReason.STEP_LIMIT, True),
    (status_lib.StopReason.TIME_LIMIT, False),
  ],
)
def test_params_of_a_run_that_used_up_its_steps_are_waited_for(
  tmp_path, reason, has_params
):
  with connected(tmp_path) as (state, learner, line):
    state.request_stop(reason, '')
    while not line.stopped():
      pass
    params = {'w': np.zeros(3, np.float32)}
    late = threading.Timer(0.5, learner.publish, (1, params))
    late.start()
    assert line.wait_for_params(last_s=30.0) is has_params
    late.join()


def test_a_server_that_is_just_started_again_is_asked_again(
  tmp_path, monkeypatch
):
  with connected(tmp_path) as (state, _, line):
    state.report('actor/0', {'env_steps': 3})
    ask, failures = line.status, iter(range(2))

    def status():
      if next(failures, None) is not None:
        raise ConnectionError('it is not there yet')
      return ask()

    monkeypatch.setattr(line, 'status', status)
    assert line.first_status().counts == {'env_steps': 3}
    monkeypatch.setattr(line, '_timeout_s', 0.0)
    failures = iter(range(1))
    with pytest.raises(ConnectionError, match='not there yet'):
      line.first_status()


def test_params_are_not_waited_for_longer_than_that(tmp_path):
  with connected(tmp_path) as (state, _, line):
    state.request_stop(status_lib.StopReason.STEP_LIMIT, '')
    assert not line.wait_for_params(last_s=0.0)
