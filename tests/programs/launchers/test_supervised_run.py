"""A launched run, as its launcher sees it: asking a variable server."""

import pytest

from distacme.programs.launchers import supervised_run
from distacme.run import run_directory
from distacme.run import run_state
from distacme.run import status as status_lib
from distacme.runtime import supervision
from distacme.variables import server


@pytest.fixture(name='serve')
def fixture_serve():
  """Starts a variable server in the place of the last one; returns its state."""
  servers = []

  def serve(address='localhost:0'):
    for old in servers:
      old.stop(grace_s=0)
    state = run_state.RunState()
    servers.append(server.VariableServer(state, address))
    return state, servers[-1].address

  yield serve
  servers[-1].stop(grace_s=0)


def test_a_worker_that_worked_before_the_server_restarted_may_restart(
  serve, tmp_path
):
  state, address = serve()
  directory = run_directory.RunDirectory(tmp_path)
  run = supervised_run.LaunchedRun({}, directory, lambda status: None)
  members = [supervision.Worker('variables/0', *[lambda: None] * 4, None, None)]
  run.attach(members, {'variables': address})
  state.report('actor/0', {'env_steps': 16})
  run.refresh()
  state, _ = serve(address)
  state.report('actor/0', state=status_lib.WorkerState.ACTING)  # it is blocked
  state.report('actor/1', state=status_lib.WorkerState.STARTING)
  run.refresh()
  assert run.may_restart('actor/0', 1)
  assert not run.may_restart('actor/1', 1)  # it never did anything
