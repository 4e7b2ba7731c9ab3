"""A run directory on a volume: made of a submission, or gone on with."""

import json
import stat

import pytest

from distacme import status as status_lib
from distacme.agents import dqn
from distacme.deploy import submitted as submitted_lib
from distacme.programs import program as program_lib
from distacme.programs import training
from distacme.rpc import keys
from distacme.rpc import token
from distacme.run import lock
from distacme.run import run_directory

CATCH = 'distacme.testing.environments:catch'


@pytest.fixture(name='config', scope='module')
def fixture_config(tmp_path_factory):
  """Returns a run's config.json and secrets, by a submission that nobody took."""
  folder = tmp_path_factory.mktemp('here')
  cluster = folder / 'cluster.toml'
  cluster.write_text('[kubernetes]\nimage = "registry.example/distacme:1"\n')
  training.train(
    dqn.Config(),
    env=CATCH,
    mode='kubernetes',
    cluster=cluster,
    run_dir=folder / 'run',
    dry_run=True,
  )
  return folder / 'run'


@pytest.fixture(name='directory')
def fixture_directory(tmp_path):
  return run_directory.RunDirectory(tmp_path / 'runs/run')


@pytest.fixture(name='submit')
def fixture_submit(tmp_path, config):
  """Returns a function that makes a submission, as a pod sees it."""

  def submit(number, **changes):
    files = tmp_path / f'submitted-{number}'
    secrets = tmp_path / f'secrets-{number}'
    for folder, texts in (
      (files, _files(config, number, changes)),
      (
        secrets,
        {name: (config / name).read_text() for name in ('key.pem', 'token')},
      ),
    ):
      (folder / '..data').mkdir(parents=True)
      for name, text in texts.items():
        (folder / '..data' / name).write_text(text)
        (folder / '..data' / name).chmod(0o440)
        (folder / name).symlink_to(f'..data/{name}')
    return submitted_lib.Submitted(files, secrets)

  return submit


def _files(config, number, changes):
  values = json.loads((config / 'config.json').read_text())
  for part in ('run', 'agent'):
    values[part].update(
      {key: value for key, value in changes.items() if key in values[part]}
    )
  return {
    'id': f's{number}\n',
    'config.json': json.dumps(values),
    'cluster.toml': '[learner]\ncpus = 3\n',
  }


def learn(directory, step):
  """Leaves what a run leaves that has come to a checkpoint, and then ended."""
  (directory.checkpoints / str(step)).mkdir(parents=True)
  directory.write_counts(step, {'env_steps': 10 * step})
  directory.write_summary(
    status_lib.Status(
      seconds=1.0,
      counts={'learner_steps': step},
      stop=status_lib.Stop(status_lib.StopReason.STEP_LIMIT),
    )
  )
  (directory.logs / 'learner').mkdir(parents=True)


def test_a_new_run_gets_its_files_and_a_program(directory, submit):
  submitted_lib.bring(submit(1, num_actors=3), directory)
  assert submitted_lib.read(directory).id == 's1'
  assert directory.read_config()['resumed_from'] == {}
  program = program_lib.read(directory)
  assert [w.name for w in program.workers if w.kind == 'actor'] == [
    'actor/0',
    'actor/1',
    'actor/2',
  ]
  assert directory.read_running().cluster == 'kubernetes'
  assert 'cpus = 3' in (directory.cluster / 'cluster.toml').read_text()


def test_secrets_can_be_used_from_where_a_mounted_secret_cannot(
  directory, submit
):
  submitted = submit(1)
  with pytest.raises(OSError):  # it is a link
    token.read(submitted.secrets / token.FILE)
  with pytest.raises(ValueError, match='can be read by others'):
    keys.server_credentials(submitted.secrets / keys.FILE)
  submitted_lib.bring(submitted, directory)
  assert token.read(directory.path / token.FILE)
  assert keys.server_credentials(directory.path / keys.FILE)
  for name in submitted_lib.SECRETS:
    assert stat.S_IMODE((directory.path / name).stat().st_mode) == 0o600


def test_rights_that_a_volume_has_added_are_taken_away(directory, submit):
  submitted = submit(1)
  submitted_lib.bring(submitted, directory)
  (directory.path / token.FILE).chmod(0o660)
  submitted_lib.bring(submitted, directory)
  assert token.read(directory.path / token.FILE)


def test_files_are_seen_together_or_not_at_all(directory, submit):
  submitted_lib.bring(submit(1), directory)
  first = submitted_lib.read(directory)
  assert submitted_lib.is_seen(first, directory)
  late = (directory.cluster / 'submission.json').read_text()
  submitted_lib.bring(submit(2), directory)
  second = submitted_lib.read(directory)
  assert submitted_lib.is_seen(second, directory)
  (directory.cluster / 'submission.json').write_text(late)
  assert not submitted_lib.is_seen(second, directory)


def test_a_replaced_pod_changes_nothing(directory, submit):
  submitted = submit(1)
  submitted_lib.bring(submitted, directory)
  learn(directory, 7)
  submitted_lib.bring(submitted, directory)
  assert directory.read_config()['resumed_from'] == {}
  assert directory.read_summary() is not None


def test_another_submission_goes_on_from_the_checkpoint(directory, submit):
  submitted_lib.bring(submit(1), directory)
  learn(directory, 7)
  (directory.cluster / 'places').mkdir()
  (directory.cluster / 'places/actor-0.json').write_text('{}')
  submitted_lib.bring(submit(2, num_actors=1), directory)
  config = directory.read_config()
  assert config['resumed_from'] == {'env_steps': 70, 'learner_steps': 7}
  assert config['run']['num_actors'] == 1
  assert 'actor/1' not in program_lib.read(directory)
  assert directory.read_summary() is None
  assert (directory.path / 'logs.1/learner').exists()
  assert not list((directory.cluster / 'places').iterdir())


def test_a_pod_that_was_killed_midway_begins_once_more(
  directory, submit, monkeypatch
):
  submitted_lib.bring(submit(1), directory)
  learn(directory, 7)

  def killed(*_):
    raise KeyboardInterrupt

  second = submit(2)
  with monkeypatch.context() as patches:
    patches.setattr(program_lib, 'write', killed)
    with pytest.raises(KeyboardInterrupt):
      submitted_lib.bring(second, directory)
  assert submitted_lib.read(directory).id == 's1'
  submitted_lib.bring(second, directory)
  assert submitted_lib.read(directory).id == 's2'
  assert directory.read_config()['resumed_from']['learner_steps'] == 7


def test_other_settings_of_learning_are_refused_and_nothing_is_changed(
  directory, submit
):
  submitted_lib.bring(submit(1), directory)
  learn(directory, 7)
  submitted_lib.bring(submit(2, seed=5, discount=0.5), directory)
  brought = submitted_lib.read(directory)
  assert brought.id == 's2'
  assert 'discount was 0.99 and is 0.5; seed was 0 and is 5' in brought.refusal
  assert directory.read_config()['run']['seed'] == 0
  assert directory.read_summary() is not None


def test_other_settings_are_taken_while_nothing_was_learnt(directory, submit):
  submitted_lib.bring(submit(1), directory)
  submitted_lib.bring(submit(2, seed=5), directory)
  assert submitted_lib.read(directory).refusal == ''
  assert directory.read_config()['run']['seed'] == 5


def test_a_directory_in_use_is_left_alone(directory, submit, monkeypatch):
  submitted_lib.bring(submit(1), directory)
  monkeypatch.setattr(lock, '_WAIT_S', 0.2)
  with lock.take(directory):
    with pytest.raises(ValueError, match='is in use by'):
      submitted_lib.bring(submit(2), directory)
  assert submitted_lib.read(directory).id == 's1'


def test_what_is_no_run_directory_is_refused(directory, submit):
  directory.path.mkdir(parents=True)
  (directory.path / 'thesis.tex').touch()
  with pytest.raises(ValueError, match='is no run directory'):
    submitted_lib.bring(submit(1), directory)
