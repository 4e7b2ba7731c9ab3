"""A program's ports: on loopback, or it says so."""

import importlib.util
import socket
import subprocess
import sys

import psutil
import pytest

from distacme.programs.launchers import open_ports
from distacme.run import endpoints
from distacme.run import run_directory
from tests.programs import launching

SMALL = (
  '--hidden-sizes', '64',
  '--min-replay-size', '300',
  '--max-seconds', '80',
)  # fmt: skip


def listening(processes):
  """Returns the addresses of every listening socket of `processes`."""
  return [
    connection.laddr.ip.removeprefix('::ffff:')
    for process in processes
    for connection in process.net_connections('inet')
    if connection.status == psutil.CONN_LISTEN
  ]


@pytest.mark.program
@pytest.mark.launchpad
@pytest.mark.parametrize(
  'mode, flags',
  [
    ('processes', ()),
    pytest.param(
      'processes', ('--replay-in-learner',), marks=pytest.mark.chaos
    ),
    pytest.param('threads', (), marks=pytest.mark.chaos),
  ],
)
def test_a_program_listens_on_loopback_only(tmp_path, mode, flags):
  with launching.Run(tmp_path / 'run', *SMALL, *flags, mode=mode) as run:
    run.wait_until_learning()
    launcher = psutil.Process(run.process.pid)
    found = listening([launcher, *run.family()])
    # The variable server, the replay service and Reverb; nothing of Courier.
    services = 3 if importlib.util.find_spec('reverb') else 2
    assert found == ['127.0.0.1'] * services
    assert 'listens on' not in run.output


@pytest.mark.program
@pytest.mark.launchpad
@pytest.mark.skipif(
  importlib.util.find_spec('reverb') is None, reason='Reverb is not installed.'
)
def test_a_program_that_others_can_reach_says_so_at_its_start(tmp_path):
  openly = (
    'import sys\n'
    'from distacme.programs import cli\n'
    'from distacme.replay.reverb import loopback\n'
    'loopback.confine = lambda library: False\n'
    'cli.main(sys.argv[1:])\n'
  )
  command = [sys.executable, '-c', openly, 'train', '--mode', 'threads']
  command += ['--env', launching.CATCH, *SMALL, '--run-dir', tmp_path / 'run']
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
    try:  # until the line, or the end
      lines = (line for line in launcher.stdout if 'listens' in line)
      assert next(lines, '').startswith('reverb/0 listens on ')
    finally:
      launcher.kill()


def serve(directory, name, host, listens=True):
  """Returns a socket that the run's directory says to be a service's."""
  one = socket.socket()
  one.bind((host, 0))
  if listens:
    one.listen()
  endpoint = endpoints.Endpoint('127.0.0.1', one.getsockname()[1])
  endpoints.write(directory.endpoints, name, endpoint)
  return one


def test_a_service_that_others_can_reach_is_named_once(tmp_path, capsys):
  directory = run_directory.RunDirectory(tmp_path)
  watch = open_ports.OpenPorts(directory)
  watch.look()  # where nobody has said anything yet
  closed = serve(directory, 'variables/0', '127.0.0.1')
  opened = serve(directory, 'replay/0', '0.0.0.0')
  with closed, opened:
    watch.look()
    watch.look()
    port = opened.getsockname()[1]
  assert capsys.readouterr().out == (
    f'replay/0 listens on 0.0.0.0, port {port}: other hosts can reach it, and it '
    'asks nobody who they are. Close the port with a firewall, or see '
    "'distacme doctor' for how to keep it to this host.\n"
  )


def test_a_service_that_asks_for_a_key_may_listen_anywhere(tmp_path, capsys):
  directory = run_directory.RunDirectory(tmp_path)
  with serve(directory, 'variables/0', '0.0.0.0') as opened:
    endpoints.write(
      directory.endpoints,
      'variables/0',
      endpoints.Endpoint(
        '127.0.0.1', opened.getsockname()[1], tmp_path / 'key'
      ),
    )
    open_ports.OpenPorts(directory).look()
  assert not capsys.readouterr().out


def test_a_service_that_does_not_listen_yet_is_looked_at_later(
  tmp_path, capsys
):
  directory = run_directory.RunDirectory(tmp_path)
  with serve(directory, 'replay/0', '0.0.0.0', listens=False) as late:
    watch = open_ports.OpenPorts(directory)
    watch.look()
    assert not capsys.readouterr().out
    late.listen()
    watch.look()
  assert 'replay/0 listens on 0.0.0.0' in capsys.readouterr().out
