"""The command line: settings become flags, mistakes become sentences."""

import functools
import json
import os
import pathlib
import resource
import subprocess
import sys

import pytest

import distacme
from distacme import status
from distacme.programs import checks
from distacme.programs import cli
from distacme.programs import experiment as experiment_lib
from distacme.programs import run_config
from distacme.programs import training
from distacme.programs.commands import evaluate
from distacme.programs.commands import train
from distacme.programs.seeds import config
from distacme.programs.view import curve_groups
from distacme.programs.view import plotting
from distacme.run import run_directory
from distacme.runtime import signals
from tests.programs import launching


@pytest.fixture(autouse=True, name='folder')
def fixture_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(pathlib.Path(__file__).parent)
  return tmp_path


def refused(capsys, *flags):
  """Returns what `distacme train` answers to flags that it refuses."""
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *flags])
  assert exit_.value.code == 2
  captured = capsys.readouterr()
  assert not list(pathlib.Path('.').rglob('config.json'))  # nothing was started
  return ' '.join((captured.out + captured.err).replace('│', ' ').split())


@pytest.mark.parametrize(
  'flags, sentence',
  [
    ('--agent dqm', "Did you mean 'dqn'? Known: bc, d4pg, ddpg"),
    ('--agent my-agent', "no agent is called 'my-agent'"),
    ('--agent no_package.agent', "no agent is called 'no_package.agent'"),
    ('--agent distacme.types', 'is no agent: it has no Config'),
    ('--mode local --env gymnasium:CartPol-v1', "Did you mean 'CartPole-v1'"),
    ('--mode local --env atarri:Pong', 'Known families: atari, bsuite'),
    (
      '--mode local --env gymnasium:Pendulum-v1',
      'DQN needs one discrete action',
    ),
    ('--lerning-rate 1', '--learning-rate FLOAT'),
    ('--learning-rate -1', 'learning_rate must be positive, got -1.0'),
    ('--mode slrum', "'local', 'threads', 'processes', 'slurm'"),
    (
      '--mode local --network nothing',
      "expected package.module:function, got 'nothing'",
    ),
    ('--mode local --network no.module:f', "'no.module:f' cannot be loaded"),
    ('--mode processes --no-jit', "Add '--mode local'"),
    ('--num-actors 0', 'num_actors must be at least 1, got 0'),
    ('--updates-per-call 0', 'updates_per_call must be at least 1, got 0'),
    (
      '--mode local --updates-per-call 500',
      'draws 500 x 64 samples at once, and with one insert that is 32032',
    ),
    (
      '--mode processes --learner-devices 0 1 --actor-devices 1',
      'accelerator 1 is given to learner/0 and to actor/0',
    ),
    (
      '--mode processes --learner-devices 2 --actor-devices 0 0',
      'accelerator 0 is given to actor/0 and to actor/1',
    ),
    (
      '--mode processes --actor-devices 3',
      'accelerator 3 is given to actor/0 and to learner/0, which takes all',
    ),
    (
      '--mode processes --learner-devices -1',
      'counted from 0, got -1 for learner/0',
    ),
    (
      '--mode processes --learner-devices 0 --actor-devices 1 2 3',
      'is for more actors than num_actors=2',
    ),
    (
      '--mode local --learner-devices 0 --actor-devices 1',
      'got actor_devices=(1,). Leave it out',
    ),
    (
      '--mode local --learner-devices 0 1 2',
      'batch_size=64 is not divisible by the 3 devices of the learner',
    ),
    ('--seed -1', 'seed must not be negative, got -1'),
    ('--max-seconds 0', 'max_seconds must be positive'),
    ('--checkpoint-period-s 0', 'checkpoint_period_s must be positive'),
    (
      '--min-replay-size 200000',
      'more than max_replay_size=100000, got 200000',
    ),
    ('--mode local --run-dir /dev/null', 'is no run directory'),
    ('--mode local --run-dir /proc/run', 'cannot be written to ([Errno 2]'),
  ],
)
def test_a_mistake_is_answered_before_anything_starts(capsys, flags, sentence):
  assert sentence in refused(capsys, *flags.split())


def test_actors_without_end_are_refused_before_a_run_is_asked(capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['scale', 'no_run', '--num-actors', f'{10**9}'])
  assert exit_.value.code == 2
  assert (
    'num_actors must be at least 1 and at most 1000 for a run that goes'
    in (capsys.readouterr().err)
  )


@pytest.mark.parametrize('agent', ['d4pg', 'ppo', 'impala'])
def test_unlimited_actions_are_refused_with_what_to_do(capsys, agent):
  pytest.importorskip('dm_control')
  answer = refused(
    capsys,
    *f'--agent {agent} --mode local --env dm_control:lqr/lqr_2_1'.split(),
  )
  assert f'{agent.upper()} needs' in answer
  assert 'got minimum=[-inf] in the action spec BoundedArray(' in answer
  assert 'Give them bounds in a wrapper' in answer
  assert "return specs.BoundedArray((1,), 'float32', -1.0, 1.0)" in answer


def test_an_unknown_command_is_answered_with_the_known_ones(capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['tarin'])
  assert exit_.value.code == 2
  assert 'train            train an agent' in capsys.readouterr().err


def test_a_command_that_is_nearly_right_is_suggested(capsys):
  with pytest.raises(SystemExit):
    cli.main(['tarin'])
  assert "unknown command 'tarin'. Did you mean 'train'?" in (
    capsys.readouterr().err
  )


def test_without_a_command_the_commands_are_listed(capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main([])
  assert exit_.value.code == 2
  assert capsys.readouterr().err.startswith('usage: distacme COMMAND')


def test_the_version_is_said(capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['--version'])
  assert exit_.value.code == 0
  assert capsys.readouterr().out == f'distacme {distacme.__version__}\n'


def test_a_reader_that_has_seen_enough_is_no_failure():
  process = subprocess.Popen(
    [launching.SCRIPT, 'train', '--help'],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    env={**os.environ, 'PYTHONUNBUFFERED': '1'},
  )
  process.stdout.close()
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 141
  assert errors == b''


@pytest.mark.parametrize(
  'command', ['train --mode local', 'plot run', 'evaluate run']
)
def test_ctrl_c_before_there_is_a_run_is_a_line(capsys, monkeypatch, command):
  def interrupted(*_, **__):
    raise signals.Stopped(status.StopReason.INTERRUPTED)

  monkeypatch.setattr(training, 'prepare', interrupted)
  monkeypatch.setattr(curve_groups, 'grouped', interrupted)
  monkeypatch.setattr(evaluate, 'evaluate', interrupted)
  with pytest.raises(SystemExit) as exit_:
    cli.main(command.split())
  assert exit_.value.code == 130
  captured = capsys.readouterr()
  assert captured.out + captured.err == 'distacme: interrupted\n'


AGENT_IN_A_FILE = f"""
import dataclasses
import sys
import distacme
from distacme.agents import dqn

@dataclasses.dataclass(frozen=True)
class Config(dqn.Config):
  hidden_sizes: tuple[int, ...] = (4,)

make_agent = dqn.make_agent

if __name__ == '__main__':
  distacme.train(
    Config(),
    env='{launching.CATCH}',
    mode=sys.argv[1],
    max_env_steps=200,
    run_dir='run',
  )
"""


def test_an_agent_in_a_file_beside_is_trained_by_its_name(folder, monkeypatch):
  monkeypatch.syspath_prepend(folder)
  (folder / 'agent_in_a_file.py').write_text(AGENT_IN_A_FILE)
  assert trained('--agent', 'agent_in_a_file') == 0
  written = json.loads((folder / 'run/config.json').read_text())
  assert written['run']['agent'] == 'agent_in_a_file'


@pytest.mark.parametrize(
  ('mode', 'code', 'said'),
  [('local', 0, 'ended: step_limit'), ('processes', 1, 'Move it to a module')],
)
def test_an_agent_in_the_script_is_trained_where_it_can_be_found(
  folder, mode, code, said
):
  script = folder / 'script.py'
  script.write_text(AGENT_IN_A_FILE)
  done = subprocess.run(
    [sys.executable, script, mode], capture_output=True, text=True, timeout=120
  )
  assert done.returncode == code
  assert said in done.stdout + done.stderr


def test_every_field_of_run_and_agent_is_a_flag():
  experiment, _ = train.parse(
    ['--discount', '0.9', '--num-actors', '3', '--hidden-sizes', '8', '16']
  )
  assert experiment.agent.discount == 0.9
  assert experiment.agent.hidden_sizes == (8, 16)
  assert experiment.run.num_actors == 3


def test_without_flags_the_defaults_are_trained():
  experiment, several = train.parse([])
  assert experiment.run == run_config.RunConfig()
  assert several == config.SeedsConfig()


@pytest.mark.parametrize('agent', ['d4pg', 'td3'])
def test_help_says_of_which_paper_an_inherited_setting_is(capsys, agent):
  with pytest.raises(SystemExit):
    cli.main(['train', '--help', '--agent', agent])
  help_ = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
  assert "policy; 1e-4 in DDPG's paper." in help_
  assert 'in the paper' not in help_


def test_help_explains_every_field(capsys):
  with pytest.raises(SystemExit):
    cli.main(['train', '--help'])
  text = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
  assert 'Gamma, per environment step.' in text
  assert 'Steps of the clock between evaluations.' in text


def test_a_local_run_ends_with_its_files_and_its_best_return(capsys, folder):
  flags = (
    f'--mode local --env {launching.CATCH} --hidden-sizes 64 --run-dir run'
  )
  flags += ' --min-replay-size 300 --eval-period 500 --solved-return 0.9'
  flags += ' --max-eval-share 1'
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *flags.split(), '--max-env-steps', '20000'])
  assert exit_.value.code == 0
  summary = run_directory.RunDirectory(folder / 'run').read_summary()
  assert summary.stop.reason == 'solved'
  assert (
    json.loads((folder / 'run/config.json').read_text())['run']['seed'] == 0
  )
  assert capsys.readouterr().out.count(f'run directory: {folder / "run"}') == 2


TINY = f'--mode local --env {launching.CATCH} --hidden-sizes 4 --run-dir run'


def trained(*flags):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *TINY.split(), '--max-env-steps', '200', *flags])
  return exit_.value.code


def test_a_run_that_was_evaluated_draws_its_curve(capsys, folder):
  pytest.importorskip('matplotlib')
  assert trained() == 0
  picture = folder / 'run/curves.png'
  assert f'learning curve: {picture}\n' in capsys.readouterr().out
  assert picture.read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
  'error, warning',
  [
    (ImportError('no matplotlib'), ''),
    (OSError('disk full'), 'curves.png: disk full'),
  ],
)
def test_a_curve_that_cannot_be_drawn_fails_no_run(
  capsys, caplog, monkeypatch, error, warning
):
  def draw(*_):
    raise error

  monkeypatch.setattr(plotting, 'draw', draw)
  assert trained() == 0
  assert 'learning curve' not in capsys.readouterr().out
  assert warning in caplog.text
  assert bool(warning) == bool(caplog.records)


def test_a_failure_of_a_local_run_is_raised_and_noted(folder):
  flags = '--mode local --env broken_environments:jammed --run-dir run'
  with pytest.raises(RuntimeError, match='the door is jammed'):
    cli.main(['train', *flags.split()])
  summary = run_directory.RunDirectory(folder / 'run').read_summary()
  assert summary.stop.reason == 'failed'
  assert 'the door is jammed' in summary.stop.detail


def test_what_a_worker_needs_can_be_pickled():
  cloudpickle = pytest.importorskip('cloudpickle')
  from distacme.agents import dqn

  experiment = experiment_lib.Experiment(
    run_config.RunConfig(),
    dqn.Config(),
    network=lambda observation: observation,
  )
  assert cloudpickle.loads(cloudpickle.dumps(experiment)).run == experiment.run


@pytest.mark.parametrize('seeds', ['', '--seeds 0-1'])
def test_a_refused_command_leaves_no_default_directory(
  capsys, monkeypatch, folder, seeds
):
  def refuse(*_):
    made = [path.name for path in (folder / 'runs').glob('dqn-*')]
    assert len(made) == 1
    raise_in_distacme()

  raise_in_distacme = functools.partial(run_config.RunConfig, num_actors=0)
  monkeypatch.setattr(checks, 'check_resumable', refuse)
  assert 'num_actors must be' in refused(
    capsys, '--mode', 'local', *seeds.split()
  )
  assert not list(folder.iterdir())
  (folder / 'runs/mine').mkdir(parents=True)
  refused(capsys, '--mode', 'local', *seeds.split())
  assert [path.name for path in (folder / 'runs').iterdir()] == ['mine']


@pytest.mark.parametrize(
  ('flags', 'needed'),
  [
    ('--mode local', 40),
    ('--mode processes --num-actors 3', 43),
    ('--mode threads --num-actors 3', 52),
  ],
)
def test_too_few_descriptors_are_refused_with_what_to_do(
  capsys, monkeypatch, flags, needed
):
  monkeypatch.setattr(resource, 'getrlimit', lambda _: (needed - 1, needed - 1))
  said = refused(capsys, *flags.split(), '--env', launching.CATCH)
  found = (
    f'may open {needed - 1} files here, and one of this run needs {needed}'
  )
  assert found in said
  assert 'ulimit -n 1024' in said
