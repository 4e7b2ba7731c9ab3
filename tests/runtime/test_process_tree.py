"""Processes end with their parent, and a run kills its own orphans only."""

import os
import signal
import subprocess
import sys

import pytest

from distacme.runtime import process_tree

# Ends at once, and leaves a process that prints nothing.
LEAVES = """
import subprocess
left = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)
print(left.pid)
"""
# Says whether it goes on, and whether its children know of its parent.
LIVES = """
import os
from distacme.runtime import process_tree
process_tree.die_with_parent()
print('lives', 'DISTACME_PARENT' in os.environ)
"""


def lives(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


def leave_orphan(family):
  """Returns the number of a process whose parent, of the family, is gone."""
  return int(
    subprocess.check_output(
      [sys.executable, '-c', LEAVES], env={**os.environ, **family.variables()}
    )
  )


@pytest.mark.skipif(sys.platform != 'linux', reason='Linux only.')
def test_a_run_kills_its_own_orphans_and_none_of_another_run_beside_it():
  first, second = process_tree.Family(), process_tree.Family()
  with first.no_orphans():
    of_first = [leave_orphan(first)]
    with second.no_orphans():
      of_second = leave_orphan(second)
    assert not lives(of_second)
    assert lives(of_first[0])
    of_first.append(leave_orphan(first))  # after the other run's end
  assert not any(map(lives, of_first))


def say_parent(pid):
  """Returns the exit code and output of a process that is told its parent."""
  ended = subprocess.run(
    [sys.executable, '-c', LIVES],
    env={**os.environ, 'DISTACME_PARENT': str(pid)},
    stdout=subprocess.PIPE,
    text=True,
    check=False,
  )
  return ended.returncode, ended.stdout


def test_a_process_lives_with_its_parent_and_passes_nothing_on():
  assert say_parent(os.getpid()) == (0, 'lives False\n')


def test_a_variable_inherited_from_elsewhere_is_no_parent():
  assert say_parent(1) == (0, 'lives False\n')
  assert say_parent('') == (0, 'lives False\n')


@pytest.mark.parametrize(
  'reaped', [True, False] if sys.platform == 'linux' else [True]
)
def test_a_process_whose_parent_is_gone_already_ends(reaped):
  gone = subprocess.Popen([sys.executable, '-c', ''], stdin=subprocess.DEVNULL)
  if reaped:
    gone.wait()
  else:
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
  assert say_parent(gone.pid) == (-signal.SIGTERM, '')
  gone.wait()
