"""Actors are as many as asked for, in the program and among the processes."""

from concurrent import futures
import importlib.util

import pytest

from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.programs.launchers import this_host
from distacme.run import files
from distacme.run import notices
from distacme.run import run_directory


class Supervisor:
  """Notes whom it was given and told to let go."""

  def __init__(self):
    self.workers = {'actor/0', 'actor/1'}

  def dismiss(self, name):
    self.workers.discard(name)

  def has(self, name):
    return name in self.workers

  def add(self, workers):
    self.workers.update(workers)


@pytest.fixture(name='directory')
def fixture_directory(tmp_path):
  return run_directory.RunDirectory(tmp_path)


@pytest.fixture(name='supervisor')
def fixture_supervisor():
  return Supervisor()


@pytest.fixture(name='actors')
def fixture_actors(directory, supervisor):
  run = run_config.RunConfig(num_actors=2)
  program = program_lib.make_program(run)
  return this_host._Actors(
    run, program, directory, supervisor, start=lambda spec: spec.name
  )


def actors_of_program(directory):
  workers = program_lib.read(directory).workers
  return {worker.name for worker in workers if worker.kind == 'actor'}


def test_workers_find_those_who_came_and_none_that_went(
  actors, directory, supervisor
):
  for count in (4, 1, 2):
    actors.scale(count)
    names = {f'actor/{index}' for index in range(count)}
    assert supervisor.workers == actors_of_program(directory) == names


@pytest.mark.parametrize('count', [1, 3])
def test_a_full_disk_leaves_the_actors_as_they_are_until_there_is_room(
  actors, directory, supervisor, monkeypatch, caplog, count
):
  notices.forget()

  def write_json(path, value):
    raise files.NotWrittenError(path, 'No space left on device')

  with monkeypatch.context() as full:
    full.setattr(files, 'write_json', write_json)
    actors.scale(count)
    actors.scale(count)
  assert supervisor.workers == {'actor/0', 'actor/1'}
  (record,) = caplog.records
  assert 'there are 2 actors as before: nothing can be' in record.getMessage()
  actors.scale(count)
  assert actors_of_program(directory) == supervisor.workers
  assert len(supervisor.workers) == count


def test_actors_that_the_system_does_not_start_are_tried_again(
  actors, directory, supervisor, monkeypatch, caplog
):
  notices.forget()
  start = actors._start

  def refuse(spec):
    if spec.name == 'actor/3':
      raise OSError('no memory')
    return start(spec)

  with monkeypatch.context() as full:
    full.setattr(actors, '_start', refuse)
    for _ in range(3):
      actors.scale(5)
      names = {'actor/0', 'actor/1', 'actor/2'}
      assert supervisor.workers == actors_of_program(directory) == names
  (record,) = caplog.records
  assert 'actor/3 could not be started: no memory' in record.getMessage()
  actors.scale(5)
  workers = [worker.name for worker in program_lib.read(directory).workers]
  assert len(workers) == len(set(workers)) == 4 + 5
  assert len(supervisor.workers) == 5


def test_launchpad_is_left_out_in_another_thread_than_the_main_one():
  with futures.ThreadPoolExecutor(1) as pool:
    assert pool.submit(this_host.find_launchpad).result() is None
  installed = importlib.util.find_spec('launchpad') is not None
  assert (this_host.find_launchpad() is not None) == installed
