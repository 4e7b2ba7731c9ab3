"""The small files of a run: whole or absent, and missed or not if they are not."""

from concurrent import futures
import json
import math
import resource

import pytest

from distacme.run import files
from distacme.run import run_directory

DAMAGED = {'empty': '', 'truncated': '{"mean_return": 0', 'another': '[]'}


@pytest.fixture(name='directory')
def fixture_directory(tmp_path):
  directory = run_directory.RunDirectory(tmp_path / 'run')
  directory.create()
  return directory


def test_a_file_that_cannot_be_written_stays_what_it_was(tmp_path):
  path = tmp_path / 'counts.json'
  files.write_json(path, {'steps': 1})
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  # A file that would be longer cannot be written: Python ignores the signal.
  resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
  try:
    with pytest.raises(OSError, match='File too large'):
      files.write_json(path, {'steps': 'x' * 1000})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert files.read_json(path) == {'steps': 1}
  assert list(tmp_path.iterdir()) == [path]


def test_infinities_are_written_as_json_has_them(tmp_path):
  def no_json(constant):
    raise AssertionError(f'{constant} is no JSON')

  path = tmp_path / 'config.json'
  value = {'clip': math.inf, 'deep': [(-math.inf, 1.5)], 'seed': 2**70}
  files.write_json(path, {**value, 'nan': math.nan})
  json.loads(path.read_text(), parse_constant=no_json)
  read = files.read_json(path)
  assert math.isnan(read.pop('nan'))
  assert read == {**value, 'deep': [[-math.inf, 1.5]]}


def test_infinities_of_earlier_versions_are_read(tmp_path):
  path = tmp_path / 'config.json'
  path.write_text('{"clip": Infinity}')
  assert files.read_json(path) == {'clip': math.inf}


def test_a_directory_that_another_process_makes_just_now_is_no_other_s(
  directory,
):
  directory.create()  # as the second of two commands does
  (directory.path / 'notes.txt').touch()
  with pytest.raises(ValueError, match='exists and is no run directory'):
    directory.create()


@pytest.mark.parametrize(
  'name', ['[x]', 'a*', 'a?', 'a\\b', 'run/[x]/run', '\udcff']
)
def test_a_path_from_which_nothing_could_be_read_is_refused(tmp_path, name):
  directory = run_directory.RunDirectory(tmp_path / name)
  with pytest.raises(ValueError, match='Choose another run_dir'):
    directory.create()
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'name', ['{a,b}', 'a b', 'a#b', 'a%20b', 'ü', ']', '~']
)
def test_other_odd_paths_are_as_good_as_any(tmp_path, name):
  run_directory.RunDirectory(tmp_path / name).create()


@pytest.mark.parametrize(
  'env', ['f:a[x]', 'f:*', 'f:a?b={1}', 'f:a\\b', '\udcff']
)
def test_the_default_directory_is_never_refused(env, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = run_directory.make_new('dqn', env, 'seed0')
  run_directory.check_path(path)
  assert path.parent == tmp_path / 'runs'


def test_no_two_commands_get_one_default_directory(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with futures.ThreadPoolExecutor(8) as pool:
    made = list(
      pool.map(
        lambda _: run_directory.make_new('dqn', 'bsuite:catch/0', 'seed3'),
        range(32),
      )
    )
  assert len(set(made)) == 32
  with futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(run_directory.take_back, made))
  assert not list(tmp_path.iterdir())


def test_a_default_directory_that_cannot_be_made_is_refused(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'runs').touch()
  with pytest.raises(ValueError, match='cannot be written to.*Choose another'):
    run_directory.make_new('dqn', 'bsuite:catch/0', 'seed3')


@pytest.mark.parametrize('damage', DAMAGED)
@pytest.mark.parametrize(
  ('name', 'read', 'lost'),
  [
    ('running.json', 'read_running', 'who runs the run'),
    ('progress.json', 'read_progress', 'from where the run was last resumed'),
    ('summary.json', 'read_summary', 'how the run ended is not known'),
  ],
)
def test_a_damaged_file_that_is_not_needed_is_one_warning(
  directory, caplog, name, read, lost, damage
):
  path = directory.path / name
  path.write_text(DAMAGED[damage])
  for _ in range(2):
    assert getattr(directory, read)() is None
  (record,) = caplog.records
  assert f'{path} is damaged (' in record.getMessage()
  assert lost in record.getMessage()


@pytest.mark.parametrize('damage', DAMAGED)
def test_damaged_counters_are_refused_and_not_taken_for_none(directory, damage):
  directory.write_counts(5, {'env_steps': 50})
  path = directory.path / 'counts.json'
  path.write_text(DAMAGED[damage])
  with pytest.raises(ValueError, match='or delete it to count from 0') as error:
    directory.read_counts(5)
  assert f'{path} is damaged (' in str(error.value)


def test_counters_come_back_with_their_checkpoint(directory, caplog):
  directory.write_counts(5, {'env_steps': 50, 'learner_steps': 4})
  directory.write_counts(7, {'env_steps': 70})
  assert directory.read_counts(5) == {'env_steps': 50, 'learner_steps': 5}
  assert not caplog.records


def test_counters_that_are_missing_are_the_nearest_before(directory, caplog):
  for step in (5, 7, 20):
    directory.write_counts(step, {'env_steps': 10 * step})
  assert directory.read_counts(9) == {'env_steps': 70, 'learner_steps': 9}
  assert 'no counters of the checkpoint 9: those of 7 are used' in caplog.text


def test_counters_that_start_over_are_a_warning(directory, caplog):
  assert directory.read_counts(9) == {'learner_steps': 9}
  assert 'no counters of the checkpoint 9: env_steps and the others start' in (
    caplog.text
  )


def test_a_checkpoint_keeps_its_counters_while_no_other_can_be_written(
  directory, caplog
):
  (directory.checkpoints / '1').mkdir(parents=True)
  for step in range(1, 20):  # of which only the first was written
    directory.write_counts(step, {'env_steps': 10 * step})
  assert directory.read_counts(1)['env_steps'] == 10
  assert directory.read_counts(19)['env_steps'] == 190
  kept = files.read_json(directory.path / 'counts.json')
  assert len(kept) < 8
  assert not caplog.records


def test_logs_of_earlier_sessions_are_kept_though_some_were_deleted(directory):
  for session in ('first', 'second', 'third'):
    directory.begin({})
    (directory.logs / 'all').write_text(session)
  (directory.path / 'logs.1' / 'all').unlink()
  (directory.path / 'logs.1').rmdir()
  directory.begin({})
  kept = [path / 'all' for path in directory.path.glob('logs.*')]
  assert sorted(path.read_text() for path in kept) == ['second', 'third']
  assert list(directory.logs.iterdir()) == []


def test_files_that_cannot_be_read_are_said_like_damaged_ones(
  directory, caplog
):
  for name in ('running', 'summary', 'config', 'counts'):
    (directory.path / f'{name}.json').mkdir()
  assert directory.read_running() is None
  assert directory.read_summary() is None
  first, second = [record.getMessage() for record in caplog.records]
  assert 'running.json cannot be read (Is a directory)' in first
  assert 'summary.json cannot be read (Is a directory)' in second
  with pytest.raises(ValueError, match=r'config.json cannot be read'):
    directory.read_config()
  with pytest.raises(ValueError, match=r'counts.json is damaged'):
    directory.read_counts(1)
