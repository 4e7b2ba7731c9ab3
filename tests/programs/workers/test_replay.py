"""The replay worker's doors, and what it starts with."""

import json
import subprocess
import sys

import pytest

from tests.programs import launching

WITHOUT_SOCKETS = """
import sys
from distacme.programs import cli
from distacme.replay.shared_memory import server
def refuse(*_):
  raise OSError('Operation not supported')
server.LocalServer = refuse
cli.main(sys.argv[1:])
"""


def train(
  run_dir, *flags, code='from distacme.programs import cli; cli.main()'
):
  """Trains for a moment; returns what was printed, and the summary."""
  command = [sys.executable, '-c', code, 'train', '--env', launching.CATCH]
  command += ['--min-replay-size', '300', '--hidden-sizes', '64']
  command += ['--run-dir', run_dir, *flags]
  done = subprocess.run(
    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )
  assert done.returncode == 0, done.stdout
  summary = json.loads((run_dir / 'summary.json').read_text())
  return done.stdout, summary


@pytest.mark.program
def test_threads_go_on_with_a_local_run_and_need_no_sockets(tmp_path):
  run_dir = tmp_path / 'run'
  _, local = train(run_dir, '--mode', 'local', '--max-env-steps', '3000')
  flags = ['--mode', 'threads', '--num-actors', '1', '--max-env-steps', '4000']
  output, threads = train(run_dir, *flags, code=WITHOUT_SOCKETS)
  assert 'can hold no socket (Operation not supported)' in output
  assert 'cannot restore replay' not in output
  steps = [each['counts']['learner_steps'] for each in (local, threads)]
  assert steps[0] < steps[1]
  # A step of the environment is one transition: more than were acted since.
  (replay,) = [w for n, w in threads['workers'].items() if n == 'replay/0']
  assert replay['metrics']['inserted'] > 2900
