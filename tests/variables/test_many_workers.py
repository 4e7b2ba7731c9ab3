"""A thousand workers at one variable server, each of which waits for news."""

import contextlib
import math
import pathlib
import resource

import grpc
import numpy as np
import pytest

from distacme import status as status_lib
from distacme.rpc import messages
from distacme.rpc import server as server_lib
from distacme.run import run_state
from distacme.variables import client
from distacme.variables import wire

MAX_MORE_THREADS = 50  # than without workers; gRPC's grow with the cores
DESCRIPTORS = 1024  # what most systems allow a process


@pytest.fixture(name='channels')
def fixture_channels():
  """Returns a function that opens a channel for each worker, each a connection."""
  before = resource.getrlimit(resource.RLIMIT_NOFILE)
  if before[1] < 2 * DESCRIPTORS:
    pytest.skip(f'this process may have no more than {before[1]} descriptors')
  resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
  with contextlib.ExitStack() as stack:
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
    yield lambda endpoint: [
      stack.enter_context(
        grpc.insecure_channel(
          endpoint.address, [('grpc.use_local_subchannel_pool', 1)]
        )
      )
      for _ in range(run_state.MAX_ACTORS)
    ]


def report(worker):
  return messages.pack(
    {
      'worker': worker,
      'session': worker,
      'sequence': 1,
      'alive': True,
      'counts': {'env_steps': 3},
      'metrics': [{'episode_return': 1.0, 'policy_lag': 2.0}],
      'state': 'acting',
    }
  )


def version_of(stream):
  """Returns the version that comes next in a stream of one leaf."""
  header = wire.decode_header(next(stream))
  wire.receive(header, stream)
  return header.version


def test_as_many_workers_as_may_be_asked_for_wait_without_a_thread_each(
  start_process, channels, wait_until
):
  process, endpoint = start_process()
  limits = (DESCRIPTORS, DESCRIPTORS)
  resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
  threads = pathlib.Path(f'/proc/{process.pid}/task')
  threads_before = len(list(threads.iterdir()))
  names = [f'actor/{index}' for index in range(run_state.MAX_ACTORS)]
  lines = channels(endpoint)
  streams = [
    line.unary_stream(wire.SERVICE.method('Subscribe'))(b'{"version": -1}')
    for line in lines
  ]
  stops = [
    line.unary_unary(wire.SERVICE.method('WaitStop')).future(b'{}')
    for line in lines
  ]
  reports = [
    line.unary_unary(wire.SERVICE.method('Report')).future(report(name))
    for line, name in zip(lines, names, strict=True)
  ]
  for answer in reports:
    assert messages.unpack(answer.result(30))['stop'] is None
  # Reports of all together must leave the server time for what else it does.
  assert messages.unpack(reports[-1].result())['period_s'] == len(names) * 0.002
  status = client.status(endpoint, timeout_s=30.0)
  assert set(status.workers) == set(names)
  assert status.counts == {'env_steps': 3 * len(names)}

  learner = client.VariableClient(endpoint, 'learner/0')
  reporter = learner.reporter(period_s=0.01)
  assert reporter.flush()
  wait_until(lambda: reporter._period_s > 1.0)
  for version in range(2):
    learner.publish(version, {'w': np.zeros(1000)})
    assert {version_of(stream) for stream in streams} == {version}
  learner.close()
  assert len(list(threads.iterdir())) < threads_before + MAX_MORE_THREADS

  assert not any(stop.done() for stop in stops)
  client.request_stop(endpoint, status_lib.StopReason.SOLVED, timeout_s=30.0)
  assert {messages.unpack(stop.result(30))['stop'] for stop in stops} == {
    'solved'
  }


def test_there_is_room_for_every_call_of_every_worker():
  calls_of_a_worker = 3  # that wait for params and the stop, and a report
  assert calls_of_a_worker * run_state.MAX_ACTORS < server_lib.MAX_CALLS


def test_the_longest_status_that_workers_can_make_arrives(
  variable_server, run_state
):
  letter = '\N{EARTH GLOBE EUROPE-AFRICA}'  # 12 bytes of JSON
  metrics = {f'{i:06}{letter * 194}': math.pi for i in range(20_000)}
  run_state.report('actor/0', metrics=metrics)
  for number in range(100):
    run_state.fail(f'actor/{number}', letter * 20_000)
  status = client.status(variable_server.endpoint, timeout_s=30.0)
  assert len(status.workers['actor/0'].metrics) == 500_000 // 200
