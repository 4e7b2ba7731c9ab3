"""What README and docs show works as it stands there."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', README, flags=re.DOTALL)


DEMONSTRATIONS = (ROOT / 'docs/demonstrations.md').read_text()


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


def test_own_arrays_are_learnt_from(tmp_path):
  (source,) = re.findall(
    r'```python\n(.*?)```', DEMONSTRATIONS, flags=re.DOTALL
  )
  done = run(source, tmp_path)
  assert done.returncode == 0, done.stderr + done.stdout
  assert 'ended: step_limit' in done.stdout


def test_episodes_are_recorded_and_learnt_from_by_three_commands(tmp_path):
  block = re.search(
    r'\n\n((?:    distacme [^\n]*\n(?:     [^\n]*\n)*)+)', DEMONSTRATIONS
  )
  commands = block[1].replace('\\\n', '').strip().splitlines()
  assert len(commands) == 3
  train, record, learn = map(shlex.split, commands)
  small = ['--max-env-steps', '300', '--min-replay-size', '50']
  small += ['--eval-episodes', '1', '--eval-period', '300']
  tiny = ['--max-learner-steps', '6', '--eval-episodes', '1']
  tiny += ['--hidden-sizes', '8', '--run-dir', 'cloned']
  shorter = ['2' if word == '100' else word for word in record]
  assert shorter != record
  for words in ([*train, *small], shorter, [*learn, *tiny]):
    assert words[0] == 'distacme'
    script = pathlib.Path(sys.executable).with_name('distacme')
    done = subprocess.run(
      [script, *words[1:]],
      cwd=tmp_path,
      capture_output=True,
      text=True,
      timeout=120,
      env={**os.environ, 'PYTHONSAFEPATH': ''},
    )
    assert done.returncode == 0, done.stderr + done.stdout
  # DQfD and R2D3, too, learn from such a dataset in tests/scores.
  assert (tmp_path / 'cloned' / 'demonstrations').is_dir()
