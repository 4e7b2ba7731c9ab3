"""A variable server in this process, and one in another."""

import contextlib
import subprocess
import sys
import time

import pytest

from distacme.run import endpoints
from distacme.run import run_state as run_state_lib
from distacme.variables import client
from distacme.variables import server

_SERVER = """
import sys
from distacme.run import run_state
from distacme.variables import server
variable_server = server.VariableServer(
  run_state.RunState(), port=int(sys.argv[1])
)
print(variable_server.endpoint.port, flush=True)
variable_server.wait()
"""


@pytest.fixture
def run_state():
  return run_state_lib.RunState()


@pytest.fixture
def variable_server(run_state):
  variable_server = server.VariableServer(run_state)
  yield variable_server
  variable_server.stop(grace_s=0)


@pytest.fixture
def connect(variable_server):
  """Returns a function that makes clients, which are closed at the end."""
  with contextlib.ExitStack() as stack:

    def make(worker='actor/0', **kwargs):
      made = client.VariableClient(variable_server.endpoint, worker, **kwargs)
      stack.callback(made.close)
      return made

    yield make


@pytest.fixture
def start_process():
  """Returns a function that starts a server process: its Popen and endpoint."""
  with contextlib.ExitStack() as stack:

    def start(port=0, env=None):
      process = subprocess.Popen(
        [sys.executable, '-c', _SERVER, str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
      )
      stack.enter_context(process)
      stack.callback(process.kill)
      port = int(process.stdout.readline())
      return process, endpoints.Endpoint('127.0.0.1', port)

    yield start


@pytest.fixture
def wait_until():
  """Returns a function that waits for a condition, and fails after a while."""

  def wait(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
      assert time.monotonic() < deadline, 'The condition never came true.'
      time.sleep(0.002)
    return value

  return wait
