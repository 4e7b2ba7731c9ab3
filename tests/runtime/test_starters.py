"""Workers start and start again as processes or threads, whoever starts them."""

import importlib.util
import sys
import time

import pytest

from distacme.runtime import process_tree
from distacme.runtime import subprocesses
from distacme.runtime import topology
from distacme.runtime import worker_threads

PROGRAM = topology.Program(
  (
    topology.WorkerSpec('actor/0', env={'LIKES': 'tea'}),
    topology.WorkerSpec('actor/1', env={'LIKES': 'coffee'}),
    topology.WorkerSpec('evaluator/0', lives_in='actor/0'),
  )
)


def launchpad(name):
  """Returns a starter of Launchpad's as a parameter of tests."""

  def start(*args):
    from distacme.runtime import launchpad

    return getattr(launchpad, name)(*args)

  missing = importlib.util.find_spec('launchpad') is None
  reason = 'Launchpad exists for Python 3.10 only'
  return pytest.param(
    start, id=name, marks=pytest.mark.skipif(missing, reason=reason)
  )


def wait_for_ends(workers):
  deadline = time.monotonic() + 60
  while any(worker.exit_code() is None for worker in workers):
    assert time.monotonic() < deadline
    time.sleep(0.02)
  return [worker.exit_code() for worker in workers]


# Says who it is, what it was given, and which signals it does not hear.
SAYS = """
import os, signal, sys
deaf = signal.pthread_sigmask(signal.SIG_BLOCK, [])
unheard = [s.name for s in (signal.SIGINT, signal.SIGHUP) if s in deaf]
print(sys.argv[1], os.environ['LIKES'], os.environ['DISTACME_PARENT'] ==
      str(os.getppid()), *unheard, 'launchpad' in sys.modules)
sys.exit(int(sys.argv[1][-1]))
"""


@pytest.mark.parametrize(
  'start_all', [subprocesses.start_all, launchpad('launch_processes')]
)
def test_processes_are_the_same_whoever_starts_them(start_all, tmp_path):
  workers = start_all(
    PROGRAM,
    lambda name: [sys.executable, '-c', SAYS, name],
    tmp_path,
    process_tree.Family(),
  )
  assert [worker.name for worker in workers] == ['actor/0', 'actor/1']
  assert wait_for_ends(workers) == [0, 1]
  said = 'actor/1 coffee True SIGINT SIGHUP False\n'
  assert (tmp_path / 'actor' / '0').read_text() == said.replace(
    'actor/1 coffee', 'actor/0 tea'
  )
  log = tmp_path / 'actor' / '1'
  assert workers[1].log == log
  assert log.read_text() == said
  workers[1].restart()
  assert wait_for_ends(workers) == [0, 1]
  assert log.read_text() == 2 * said
  assert sorted(path.name for path in tmp_path.rglob('*')) == [
    '0',
    '1',
    'actor',
  ]


def test_the_log_of_another_worker_of_that_name_is_put_aside(tmp_path):
  for word in ('first', 'second'):
    command = [sys.executable, '-c', f'print({word!r})']
    worker = subprocesses.start(
      PROGRAM['actor/0'],
      lambda name, command=command: command,
      tmp_path,
      process_tree.Family(),
    )
    wait_for_ends([worker])
  assert (tmp_path / 'actor' / '0.before').read_text() == 'first\n'
  assert (tmp_path / 'actor' / '0').read_text() == 'second\n'


@pytest.mark.parametrize(
  'start_all', [worker_threads.start_all, launchpad('launch_threads')]
)
@pytest.mark.filterwarnings(r'ignore:setDaemon\(\) is deprecated')
def test_threads_end_with_a_code_and_fail_with_1(start_all):
  def run(name):
    if name == 'actor/1':
      raise RuntimeError('no coffee')
    return 0

  workers = start_all(PROGRAM, run)
  assert [worker.name for worker in workers] == ['actor/0', 'actor/1']
  assert wait_for_ends(workers) == [0, 1]
  assert all(worker.restart is None for worker in workers)
