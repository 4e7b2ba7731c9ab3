"""The program of a run, as program.json holds it."""

import sys

import pytest

from distacme.agents import dqn
from distacme.programs import checks
from distacme.programs import cli
from distacme.programs import experiment as experiment_lib
from distacme.programs import modes
from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.run import files
from distacme.run import run_directory
from tests.programs import launching


def make(**settings):
  return program_lib.make_program(run_config.RunConfig(**settings))


def test_a_run_writes_its_workers_and_starts_none(tmp_path):
  run = run_config.RunConfig(
    env=launching.CATCH, num_actors=3, run_dir=tmp_path / 'run'
  )
  directory, lock = checks.check(experiment_lib.Experiment(run, dqn.Config()))
  lock.close()
  program = program_lib.read(directory)
  assert program == program_lib.make_program(run)
  assert {worker.name: worker.needs for worker in program.workers} == {
    'variables/0': (),
    'replay/0': ('variables/0',),
    'learner/0': ('variables/0', 'replay/0'),
    'actor/0': ('variables/0', 'replay/0'),
    'actor/1': ('variables/0', 'replay/0'),
    'actor/2': ('variables/0', 'replay/0'),
    'evaluator/0': ('variables/0',),
  }
  assert program.import_path == tuple(filter(None, program.import_path))
  assert set(map(str, sys.path[1:])) <= set(program.import_path)
  written = files.read_json(directory.program)['workers'][3]
  assert written['name'] == 'actor/0'
  assert written['env']['JAX_PLATFORMS'] == 'cpu'  # the learner's it is not
  assert written['resources'] == {'cpus': 1, 'accelerators': 0}
  assert not directory.endpoints.exists()  # so that no port is bound either


def test_replay_lives_where_it_is_asked_to():
  assert make()['replay/0'].lives_in == ''
  assert make(replay_in_learner=True)['replay/0'].lives_in == 'learner/0'


def test_accelerators_are_asked_for_by_those_who_are_given_them():
  program = make(learner_devices=(0, 1), actor_devices=(2,))
  wanted = {
    name: program[name].resources['accelerators']
    for name in ('learner/0', 'actor/0', 'actor/1')
  }
  assert wanted == {'learner/0': 2, 'actor/0': 1, 'actor/1': 0}
  assert 'accelerators' not in make()['learner/0'].resources


def test_a_run_without_a_program_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'program\.json is missing or damaged'):
    program_lib.read(run_directory.RunDirectory(tmp_path))


@pytest.mark.parametrize('mode', ['threads', 'processes'])
def test_a_mode_without_grpc_says_what_is_missing(
  mode, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  path = tmp_path / 'run'
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', '--mode', mode, '--run-dir', str(path)])
  assert exit_.value.code == 2
  assert capsys.readouterr().err == (
    'distacme: workers side by side talk over gRPC, which is not installed. Run: '
    "pip install 'grpcio>=1.60', or run with '--mode local'.\n"
  )
  assert not path.exists()


def test_modes_are_those_of_the_table():
  assert set(run_config.RunConfig.__annotations__) >= {'mode'}
  assert list(modes.LAUNCHERS) == list(modes.Mode.__args__)
  with pytest.raises(
    ValueError, match=r"no mode is called 'none'\. Known: loc"
  ):
    run_config.RunConfig(mode='none')


@pytest.mark.parametrize(
  ('settings', 'said'),
  [
    ({'jit': False}, "local mode only, got mode='threads'"),
    ({'mode': 'local', 'tls': True}, "mode='local' has none: nothing listens"),
    (
      {'mode': 'local', 'actor_devices': (1,)},
      'in local mode the actor shares',
    ),
    ({'mode': 'processes', 'agent': '__main__'}, 'do not find an agent in the'),
  ],
)
def test_what_a_mode_cannot_do_is_refused(settings, said):
  with pytest.raises(ValueError, match=said):
    run_config.RunConfig(
      **{'mode': 'threads', 'learner_devices': (0,), **settings}
    )
