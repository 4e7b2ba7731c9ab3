"""A signal is a request to stop, in order; one that nobody takes ends all at once."""

import queue
import signal
import subprocess
import sys

import pytest

from distacme import status
from distacme.runtime import signals

INTERRUPTED = status.StopReason.INTERRUPTED
TERMINATED = status.StopReason.TERMINATED
DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def fixture_handlers():
  numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
  before = {number: signal.getsignal(number) for number in numbers}
  # Tests that are run in the background may have been told to ignore some.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  signal.signal(signal.SIGHUP, signal.SIG_DFL)
  usual = {number: signal.getsignal(number) for number in numbers}
  yield
  assert {n: signal.getsignal(n) for n in numbers} == usual or (
    signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
  )
  for number, handler in before.items():
    signal.signal(number, handler)


class Taker:
  """Notes the requests, and how often it is hurried."""

  def __init__(self):
    self.requests = queue.Queue()
    self.hurried = 0

  def hurry(self):
    self.hurried += 1

  def next(self):
    return self.requests.get(timeout=DEADLINE_S)


@pytest.fixture(name='taker')
def fixture_taker():
  return Taker()


def taken_by(stops, taker):
  return stops.passed_to(taker.requests.put, taker.hurry)


@pytest.mark.parametrize(
  ('number', 'reason'),
  [
    (signal.SIGINT, INTERRUPTED),
    (signal.SIGTERM, TERMINATED),
    (signal.SIGHUP, TERMINATED),
  ],
)
def test_the_first_signal_is_a_request(taker, number, reason):
  with signals.StopRequests() as stops, taken_by(stops, taker):
    signal.raise_signal(number)
    assert taker.next() == reason
  assert not taker.hurried


def test_another_sigterm_changes_nothing(taker):
  with signals.StopRequests() as stops, taken_by(stops, taker):
    for _ in range(5):
      signal.raise_signal(signal.SIGTERM)
      signal.raise_signal(signal.SIGHUP)
    assert taker.next() == TERMINATED
    assert taker.requests.empty()
  assert not taker.hurried


@pytest.mark.parametrize('first', [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_a_signal_hurries_once_and_then_acts_as_before(
  taker, first
):
  with signals.StopRequests() as stops, taken_by(stops, taker):
    signal.raise_signal(first)
    signal.raise_signal(signal.SIGINT)
    assert taker.hurried == 1
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
  assert taker.hurried == 1


def test_sigterm_after_ctrl_c_is_passed_on_and_not_hurried(taker):
  with signals.StopRequests() as stops, taken_by(stops, taker):
    signal.raise_signal(signal.SIGINT)
    assert taker.next() == INTERRUPTED
    signal.raise_signal(signal.SIGTERM)
    assert taker.next() == TERMINATED
  assert not taker.hurried


def test_without_a_function_for_it_hurry_ends_what_is_under_way():
  with signals.StopRequests() as stops, stops.passed_to(lambda reason: None):
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(signals.Stopped, match='terminated'):
      signal.raise_signal(signal.SIGINT)


def test_a_hurry_is_held_back_while_a_file_is_written(taker):
  with signals.StopRequests() as stops, taken_by(stops, taker):
    signal.raise_signal(signal.SIGINT)
    with stops.held():
      signal.raise_signal(signal.SIGINT)
      assert not taker.hurried
    assert taker.hurried == 1
    with stops.held():
      pass
  assert taker.hurried == 1


@pytest.mark.parametrize('count', [1, 2])
def test_a_request_before_anybody_takes_it_is_not_lost(taker, count):
  with signals.StopRequests() as stops:
    for _ in range(count):
      with pytest.raises(signals.Stopped, match='interrupted'):
        signal.raise_signal(signal.SIGINT)  # a library may catch it
    with taken_by(stops, taker):
      assert taker.next() == INTERRUPTED
  assert taker.hurried == count - 1


def test_a_hangup_that_was_ignored_stays_ignored(taker):
  signal.signal(signal.SIGHUP, signal.SIG_IGN)
  with signals.StopRequests() as stops, taken_by(stops, taker):
    signal.raise_signal(signal.SIGHUP)
    assert taker.requests.empty()


# Of a process that takes signals before anything else is imported.
FIRST = """
import os, signal, sys
from distacme.runtime import ending
ending.at_signals()
print('begun')
"""


def run(code, *arguments):
  return subprocess.run(
    [sys.executable, '-c', code, *arguments],
    capture_output=True,
    text=True,
    timeout=DEADLINE_S,
  )


@pytest.mark.parametrize(
  ('name', 'code', 'said'),
  [
    ('SIGINT', 130, 'interrupted'),
    ('SIGTERM', 143, 'terminated'),
    ('SIGHUP', 143, 'terminated'),
  ],
)
def test_a_command_that_has_begun_nothing_ends_in_a_line(name, code, said):
  done = run(f'{FIRST}signal.raise_signal(signal.{name})\nprint("goes on")')
  assert (done.returncode, done.stderr) == (code, f'distacme: {said}\n')
  assert done.stdout == 'begun\n'


@pytest.mark.parametrize('code', ['0', '1', '143'])
def test_a_command_at_its_end_keeps_its_exit_code(code):
  done = run(
    f'{FIRST}ending.at_signals({code})\nsignal.raise_signal(signal.SIGINT)'
  )
  assert (done.returncode, done.stderr) == (int(code), '')


def test_the_last_moments_of_an_interpreter_are_not_cut_short():
  done = run("""
import signal, sys
from distacme.runtime import ending
from distacme.programs import start
sys.argv[1:] = ['--version']

class Last:
  def __del__(self, kill=signal.raise_signal):
    for number in (2, 15, 1):
      kill(number)

sys.last = Last()
start.main()
""")
  assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize(('name', 'code'), [('worker actor/0', 3), ('x', 7)])
def test_a_workers_thread_does_not_hold_up_the_end(name, code):
  done = run(f"""{FIRST}
import atexit, threading
threading.Thread(target=threading.Event().wait, name={name!r}, daemon=True).start()
atexit.register(lambda: (print(end="", flush=True), os._exit(7)))
ending.despite_workers(3)
""")
  assert (done.returncode, done.stdout) == (code, 'begun\n')


def test_a_fork_of_a_users_environment_dies_of_its_signal():
  done = run(f"""{FIRST}
pid = os.fork()
if not pid:
  signal.raise_signal(signal.SIGTERM)
  os._exit(0)
assert os.waitpid(pid, 0)[1] == signal.SIGTERM
""")
  assert (done.returncode, done.stderr) == (0, '')


# Sends itself a signal when a module is looked for.
AT_AN_IMPORT = """
import signal, sys

class Finder:
  def find_spec(self, name, *_):
    if name == sys.argv[1]:
      signal.raise_signal(int(sys.argv[2]))

sys.meta_path.insert(0, Finder())
arguments = sys.argv[3:]
from distacme.programs import start
start.main(arguments)
"""


@pytest.mark.parametrize(
  ('module', 'number', 'command'),
  [
    ('distacme.programs.cli', signal.SIGINT, 'doctor'),
    ('distacme.programs.cli', signal.SIGTERM, 'train --mode local'),
    ('numpy', signal.SIGINT, 'train --mode processes'),
    ('rich', signal.SIGTERM, 'watch run'),
    ('distacme.programs.commands.evaluate', signal.SIGINT, 'evaluate run'),
  ],
)
def test_a_command_takes_signals_before_what_it_imports(
  module, number, command
):
  done = run(AT_AN_IMPORT, module, str(int(number)), *command.split())
  assert done.returncode == 128 + number
  assert len(done.stderr.splitlines()) == 1
