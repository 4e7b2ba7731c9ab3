"""What the README shows works as it stands there."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', README, flags=re.DOTALL)


def run(source, folder):
  path = folder / 'example.py'
  path.write_text(source)
  return subprocess.run(
    [sys.executable, path],
    cwd=folder,
    capture_output=True,
    text=True,
    timeout=120,
  )


def test_the_two_lines_run(tmp_path):
  done = run(BLOCKS[0] + '\nassert loop.learner.steps > 0\n', tmp_path)
  assert done.returncode == 0, done.stderr


@pytest.mark.program
def test_a_network_and_an_environment_of_ones_own_run_as_processes(tmp_path):
  source = BLOCKS[1]
  assert source.count('100_000') == 1
  done = run(source.replace('100_000', '2_000'), tmp_path)
  assert done.returncode == 0, done.stderr + done.stdout
  assert 'ended: step_limit' in done.stdout


def test_the_train_command_is_that_of_the_makefile():
  makefile = (ROOT / 'Makefile').read_text()
  (command,) = re.findall(r'^TRAIN := ((?:.*\\\n)*.*)$', makefile, flags=re.M)
  words = command.replace('\\', '').split()
  assert ' '.join(words) in ' '.join(README.replace('\\', '').split())
