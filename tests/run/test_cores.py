"""How many cores the workers of a program get."""

import pytest

from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.run import cores


@pytest.fixture
def host(monkeypatch, tmp_path):
  """Returns a function that makes this host one of so many cores."""
  monkeypatch.setattr(cores, '_QUOTA', tmp_path / 'cpu.max')
  for name in ('NPROC', 'XLA_FLAGS'):
    monkeypatch.delenv(name, raising=False)

  def set_cores(number):
    allowed = set(range(number))
    monkeypatch.setattr(
      'os.sched_getaffinity', lambda _: allowed, raising=False
    )

  return set_cores


def learner(num_actors=2):
  run = run_config.RunConfig(mode='processes', num_actors=num_actors)
  return program_lib.make_program(run)['learner/0'].env


@pytest.mark.parametrize(
  ('number', 'num_actors', 'learns_on'),
  [(1, 2, 1), (2, 2, 1), (4, 2, 1), (8, 2, 5), (8, 30, 1), (64, 8, 55)],
)
def test_the_learner_gets_what_actors_and_replay_leave(
  host, number, num_actors, learns_on
):
  host(number)
  assert learner(num_actors)['NPROC'] == f'{learns_on}'


@pytest.mark.parametrize(
  ('limit', 'number'),
  [('max 100000', 8), ('300000 100000', 3), ('150000 100000', 2), ('5 10', 1)],
)
def test_the_limit_of_a_container_counts(host, tmp_path, limit, number):
  host(8)
  (tmp_path / 'cpu.max').write_text(f'{limit}\n')
  assert cores.count() == number


def test_a_choice_of_the_user_stays(host, monkeypatch):
  host(2)
  monkeypatch.setenv('NPROC', '2')
  assert 'NPROC' not in learner()
  monkeypatch.setenv('XLA_FLAGS', '--xla_dump_to=here')
  assert cores.acting()['XLA_FLAGS'].split() == [
    '--xla_dump_to=here',
    '--xla_cpu_multi_thread_eigen=false',
    'intra_op_parallelism_threads=1',
  ]
