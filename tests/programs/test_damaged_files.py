"""Each file of a run, damaged in each way: a sentence or a warning, no traceback."""

import pathlib
import random
import re
import shutil

import pytest

from distacme.programs import cli
from distacme.programs import loading
from distacme.programs import refusals
from distacme.programs import training
from distacme.programs.commands import train
from distacme.programs.launchers import one_process
from distacme.programs.view import curve_groups
from distacme.programs.view import observer
from distacme.run import notices
from distacme.run import run_directory
from tests.programs import launching

# As in the fixture of the run.
FLAGS = (
  *('--mode', 'local', '--env', launching.CATCH, '--hidden-sizes', '64'),
  *('--min-replay-size', '300', '--eval-period', '500'),
  *('--max-eval-share', '1', '--max-env-steps', '4100'),
)


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path):
  size = max(64, path.stat().st_size)
  path.write_bytes(random.Random(0).randbytes(size))


def clear(path):
  path.write_bytes(bytes(path.stat().st_size))


def replace(path):
  path.write_text('[]')  # which is whole, and of something else


QUICK = (truncate, overwrite, replace, pathlib.Path.unlink)
DAMAGES = (*QUICK, clear)


def kinds(run_dir):
  """Returns a file of each kind, by a name without steps and digests."""
  found = {}
  for path in sorted(run_dir.rglob('*')):
    if path.is_file():
      name = str(path.relative_to(run_dir))
      found.setdefault(
        re.sub(r'/(\d+|[0-9a-f]{32}|events\..*)', '/N', name), name
      )
  return found


@pytest.fixture(name='damaged')
def fixture_damaged(run_dir, tmp_path):
  """Returns a function that copies the run, with one file of it damaged."""

  def make(name, damage):
    copy = tmp_path / 'run'
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run_dir, copy)
    damage(copy / name)
    notices.forget()
    return copy

  return make


def readers(name, run_dir):
  """Returns what reads a file: looks at the run, its params, its resumption."""
  yield lambda: observer.Observer(run_dir).look()
  yield lambda: curve_groups.grouped([run_dir])
  if name.startswith(('best/', 'config')):
    yield lambda: loading.load(run_dir)
  if name.startswith('checkpoints/'):
    yield lambda: loading.load(run_dir, best=False)
  if name.startswith(('checkpoints/', 'config', 'counts', 'lock', 'summary')):
    yield lambda: resume(run_dir)
  if name.startswith('replay/'):
    yield lambda: restore(run_dir)


def resume(run_dir):
  """Checks a run, as `distacme train` does before anything starts."""
  experiment, _ = train.parse((*FLAGS, '--run-dir', str(run_dir)))
  training.prepare(experiment).lock.close()


def restore(run_dir):
  """Reads a checkpoint of replay, as a run in one process does."""
  experiment, _ = train.parse((*FLAGS, '--run-dir', str(run_dir)))
  agent = experiment.make_agent(experiment.environment_spec())
  directory = run_directory.RunDirectory(run_dir)
  saved = one_process._Saved(directory, agent, 1.0)
  loaded = saved._replay.restore(one_process.memory.read)
  saved.close()
  return loaded


@pytest.mark.parametrize('damage', QUICK, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_a_sentence_or_a_warning(damaged, run_dir, damage):
  read = 0
  for kind, name in kinds(run_dir).items():
    if kind.startswith(('tensorboard/', 'curves')):
      continue  # which nothing of ours reads
    copy = damaged(name, damage)
    for reader in readers(name, copy):
      refusals.in_a_sentence(reader)  # which raises what is no sentence
      read += 1
  assert read > 40


@pytest.mark.chaos
@pytest.mark.parametrize('damage', DAMAGES, ids=lambda damage: damage.__name__)
def test_every_command_goes_on_or_says_what_is_damaged(
  damaged, run_dir, tmp_path, damage, capsys
):
  commands = {
    'watch': (),
    'plot': ('--output', tmp_path / 'curve.png'),
    'evaluate': ('--episodes', '1'),
    'train': (*FLAGS, '--run-dir'),
  }
  for name in kinds(run_dir).values():
    for command, flags in commands.items():
      copy = damaged(name, damage)
      rest = (*flags, copy) if command == 'train' else (copy, *flags)
      with pytest.raises(SystemExit) as exit_:
        cli.main([command, *map(str, rest)])
      said = capsys.readouterr()
      assert exit_.value.code in (0, 2), (name, command, said)
      assert 'Traceback' not in said.out + said.err, (name, command)
