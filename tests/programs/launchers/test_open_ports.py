"""A program's ports: on loopback, or it says so."""

import importlib.util
import socket
import subprocess
import sys

import psutil
import pytest

from distacme.programs.launchers import open_ports
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


needs_launchpad = pytest.mark.skipif(
  importlib.util.find_spec('launchpad') is None,
  reason='Launchpad and Reverb exist for Python 3.10 only',
)


@needs_launchpad
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
    # The variable server and Reverb; nothing of Courier.
    assert found == ['127.0.0.1', '127.0.0.1']
    assert 'listens on' not in run.output


@needs_launchpad
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
      assert next(lines, '').startswith('replay listens on ')
    finally:
      launcher.kill()


def serve(host):
  one = socket.create_server((host, 0))
  return one, f'localhost:{one.getsockname()[1]}'


def test_a_service_that_others_can_reach_is_named_once(capsys):
  closed, closed_address = serve('127.0.0.1')
  opened, opened_address = serve('0.0.0.0')
  port = opened_address.rpartition(':')[2]
  with closed, opened:
    watch = open_ports.Doors(
      {'variables': closed_address, 'replay': opened_address}
    )
    watch.look()
    watch.look()
  assert capsys.readouterr().out == (
    f'replay listens on 0.0.0.0, port {port}: other hosts can reach it, and it '
    'asks nobody who they are. Close the port with a firewall, or see '
    "'distacme doctor' for how to keep it to this host.\n"
  )


def test_a_service_that_does_not_listen_yet_is_looked_at_later(capsys):
  with socket.socket() as late:
    late.bind(('0.0.0.0', 0))
    watch = open_ports.Doors({'replay': f'localhost:{late.getsockname()[1]}'})
    watch.look()
    assert not capsys.readouterr().out
    late.listen()
    watch.look()
  assert 'replay listens on 0.0.0.0' in capsys.readouterr().out
