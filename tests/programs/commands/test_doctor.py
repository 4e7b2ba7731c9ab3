"""`distacme doctor`: a line for each part, and what to do."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

from distacme.programs import cli
from distacme.programs import compilation_cache
from distacme.programs.commands import doctor
from tests.programs import launching


def found():
  return '1.0'


def broken():
  raise ImportError('No module named jam\nand more')


def run(capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['doctor'])
  return exit_.value.code, capsys.readouterr().out.splitlines()


def test_a_part_that_works_is_ok():
  check = doctor.Check('jam', found, 'Make some')
  assert doctor.examine(check) == (True, 'ok       jam: 1.0')


def test_a_part_that_is_missing_is_named_with_its_remedy():
  check = doctor.Check('jam', broken, 'Run: make jam', 'breakfast')
  assert doctor.examine(check) == (
    False,
    'missing  jam: ImportError: No module named jam. Run: make jam. '
    'Without it: no breakfast.',
  )


@pytest.mark.parametrize(
  'without, code, end',
  [
    ('breakfast', 0, 'local mode works'),
    ('', 1, 'local mode does not work'),
  ],
)
def test_only_what_local_mode_needs_decides_the_exit_code(
  capsys, monkeypatch, without, code, end
):
  checks = (
    doctor.Check('jam', broken, 'Make some', without),
    doctor.Check('bread', found, 'Bake some'),
  )
  monkeypatch.setattr(doctor, 'CHECKS', checks)
  exit_code, lines = run(capsys)
  assert exit_code == code
  assert lines[1] == 'ok       bread: 1.0'
  assert lines[-2] == end


@pytest.mark.parametrize(
  'find, name, end',
  [
    (found, 'grpc', 'threads and processes work'),
    (broken, 'grpc', 'threads and processes do not work'),
    (broken, 'Reverb', 'threads and processes work'),
    (broken, 'Launchpad', 'threads and processes work'),
    (broken, 'bsuite', 'threads and processes work'),
  ],
)
def test_what_programs_need_is_said_apart(capsys, monkeypatch, find, name, end):
  checks = (doctor.Check(name, find, 'Get it', 'it'),)
  monkeypatch.setattr(doctor, 'CHECKS', checks)
  exit_code, lines = run(capsys)
  assert exit_code == 0
  assert lines[-1] == end


def test_the_cores_of_a_program_are_said(monkeypatch):
  monkeypatch.setattr(
    'os.sched_getaffinity', lambda _: {*range(8)}, raising=False
  )
  ok, line = examine('cores')
  assert ok
  assert ' 8; XLA gets 5 in the learner of a program with 2 actors' in line


def test_the_folder_of_compiled_functions_is_said(monkeypatch, tmp_path):
  assert examine('compiled functions') == (
    True,
    'ok       compiled functions: as JAX_COMPILATION_CACHE_DIR says',
  )
  monkeypatch.setattr(compilation_cache, 'CHOICES', ())
  monkeypatch.setattr(compilation_cache, '_root', lambda: tmp_path / 'there')
  (tmp_path / 'there').write_text('a file')
  ok, line = examine('compiled functions')
  assert not ok
  assert 'Set XDG_CACHE_HOME' in line


def test_a_directory_that_cannot_be_written_to_is_found(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  tmp_path.rmdir()
  (check,) = [c for c in doctor.CHECKS if c.name == 'writable directory']
  ok, line = doctor.examine(check)
  assert not ok
  assert 'or give --run-dir' in line


needs_reverb = pytest.mark.skipif(
  importlib.util.find_spec('reverb') is None, reason='Reverb is not installed.'
)


def examine(name):
  (check,) = [c for c in doctor.CHECKS if c.name == name]
  return doctor.examine(check)


def test_libraries_without_bytecode_are_found(monkeypatch, tmp_path):
  monkeypatch.setattr(sys, 'pycache_prefix', str(tmp_path))  # where is none
  ok, line = examine('bytecode')
  assert not ok
  assert 'jax/__init__.py. Run: ' in line
  for path in ('jax', 'haiku'):
    source = importlib.import_module(path).__file__
    cached = pathlib.Path(importlib.util.cache_from_source(source))
    cached.parent.mkdir(parents=True)
    cached.touch()
  assert examine('bytecode')[0]


@pytest.mark.parametrize(
  'error, remedy',
  [
    (ImportError('no'), "Run: pip install 'distacme[plot]'"),
    (RuntimeError('Could not determine home directory.'), 'Set MPLCONFIGDIR'),
  ],
)
def test_matplotlib_without_a_home_needs_no_installation(error, remedy):
  def fail():
    raise error

  (check,) = [c for c in doctor.CHECKS if c.name == 'matplotlib']
  assert (
    f'{error}'.rstrip('.') + f'. {remedy}'
    in (doctor.examine(check._replace(find=fail))[1])
  )


def doors():
  return examine('replay behind loopback')


def test_replay_is_seen_to_listen_on_loopback():
  assert doors() == (
    True,
    'ok       replay behind loopback: it listens on 127.0.0.1 only',
  )


@needs_reverb
def test_replay_that_others_can_reach_is_found(monkeypatch):
  openly = (
    'from distacme.replay.reverb import loopback\n'
    'loopback.confine = lambda library: False\n'
  )
  monkeypatch.setattr(doctor, '_SERVE', openly + doctor._SERVE)
  ok, line = doors()
  assert not ok
  assert any(f'127.0.0.1 and {a}. Close' in line for a in ('::', '0.0.0.0'))
  assert line.endswith('no replay server that other hosts cannot reach.')


@pytest.mark.parametrize(
  'script, why',
  [('1 / 0', 'division by zero'), ('', 'no address that is known')],
)
def test_replay_that_does_not_start_is_found(monkeypatch, script, why):
  monkeypatch.setattr(doctor, '_SERVE', script)
  ok, line = doors()
  assert not ok
  assert why in line


def test_here_local_mode_works(tmp_path):
  done = subprocess.run(
    [launching.SCRIPT, 'doctor'],
    capture_output=True,
    text=True,
    timeout=80,
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  lines = done.stdout.splitlines()
  assert len(lines) == len(doctor.CHECKS) + 3
  assert lines[0].startswith('ok       Python: 3.')
  assert lines[-2] == 'local mode works'
