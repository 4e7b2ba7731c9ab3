"""`distacme record`: a run's episodes as a dataset."""

import json
import os
import resource
import shutil
import signal
import sys
import threading

import numpy as np
import pytest
import tree

from distacme import core
from distacme import specs
from distacme.acting import greedy_policy
from distacme.acting import recording
from distacme.demonstrations import datasets
from distacme.environments import wrappers
from distacme.programs import agents_by_name
from distacme.programs import cli
from distacme.programs import experiment as experiment_lib
from distacme.programs import loading
from distacme.programs import run_config
from distacme.programs.commands import evaluate
from distacme.programs.commands import record
from distacme.run import seeding
from distacme.testing import environments
from tests.programs import launching

minari = pytest.importorskip('minari')


def run(capsys, *arguments):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['record', *map(str, arguments)])
  captured = capsys.readouterr()
  return exit_.value.code, captured.out + captured.err


@pytest.fixture(name='output')
def fixture_output(tmp_path):
  return tmp_path / 'expert-v0'


def episodes(dataset, run_dir):
  spec = loading.load(run_dir).spec
  return list(datasets.read(dataset).checked(spec))


def same(first, second):
  return all(
    tree.flatten(
      tree.map_structure(lambda a, b: np.array_equal(a, b), first, second)
    )
  )


def test_it_writes_episodes_and_says_how_to_learn_from_them(
  capsys, run_dir, output
):
  code, text = run(capsys, run_dir, '--episodes', 6, '--output', output)
  assert code == 0
  returns, dataset, then = text.splitlines()
  recorded = episodes(output, run_dir)
  mean = np.mean([e.rewards.sum() for e in recorded])
  version = loading.load(run_dir).params.version
  assert returns == (
    f'mean return {mean:.4g} (min {min(e.rewards.sum() for e in recorded):.4g}, '
    f'max 1) over 6 episodes of 54 steps, params version {version}'
  )
  assert dataset == f'dataset: {output}'
  assert then == (
    f'next: distacme train --agent bc --env {launching.CATCH} '
    f'--demonstrations {output}'
  )


def test_the_episodes_are_those_of_a_greedy_policy(run_dir, output):
  record.record(run_dir, output, 12)
  policy = loading.load_policy(run_dir)
  for episode in episodes(output, run_dir):
    assert episode.num_steps == 9
    assert episode.discounts.tolist() == [1] * 8 + [0]
    for step in range(9):
      action = policy(episode.observations[step])
      assert int(action) == episode.actions[step]


def test_metadata_name_the_policy_and_no_path(run_dir, output):
  record.record(run_dir, output, 2, seed=5, exploring=True, best=False)
  metadata = json.loads((output / 'data/metadata.json').read_text())
  newest = max(int(p.name) for p in (run_dir / 'checkpoints').glob('[0-9]*'))
  ours = metadata['distacme']
  assert metadata['algorithm_name'] == ours['agent'] == 'dqn'
  assert ours['environment'] == launching.CATCH
  assert ours['params_version'] == newest
  assert ours['policy'] == 'exploring'
  assert ours['seed'] == 5
  assert ours['distacme_version']
  assert str(run_dir) not in json.dumps(metadata)
  dataset = minari.MinariDataset(output / 'data')
  assert ours['mean_return'] == np.mean([e.rewards.sum() for e in dataset])
  # The environment was seeded once: its later episodes have no seed of their own.
  for info in dataset.storage.get_episode_metadata([0, 1]):
    assert 'seed' not in info


def test_the_seed_decides_the_episodes(run_dir, tmp_path):
  for name, seed in (('a', 3), ('b', 3), ('c', 4)):
    record.record(run_dir, tmp_path / name, 5, seed=seed, exploring=True)
  a, b, c = (episodes(tmp_path / name, run_dir) for name in 'abc')
  assert all(map(same, a, b))
  assert not all(map(same, a, c))


def test_exploring_differs_from_greedy(run_dir, tmp_path):
  for name, exploring in (('greedy', False), ('exploring', True)):
    record.record(run_dir, tmp_path / name, 20, exploring=exploring)
  policy = loading.load_policy(run_dir)
  shares = []
  for name in ('greedy', 'exploring'):
    taken = [
      int(policy(e.observations[step])) == e.actions[step]
      for e in episodes(tmp_path / name, run_dir)
      for step in range(e.num_steps)
    ]
    shares.append(np.mean(taken))
  assert shares[0] == 1
  assert 0.3 < shares[1] < 1


def test_episodes_are_neither_those_of_training_nor_of_evaluation():
  assert len({record._STREAM, evaluate._STREAM}) == 2
  assert record._STREAM > 1_000_000


@pytest.fixture(name='short_run')
def fixture_short_run(run_dir, tmp_path):
  """Returns a run whose episodes are cut off after 4 steps."""
  shutil.copytree(run_dir, tmp_path / 'run')
  path = tmp_path / 'run/config.json'
  config = json.loads(path.read_text())
  config['run']['max_eval_episode_steps'] = 4
  path.write_text(json.dumps(config))
  return tmp_path / 'run'


def test_an_episode_that_is_cut_off_is_truncated(capsys, short_run, output):
  code, text = run(capsys, short_run, '--episodes', 3, '--output', output)
  assert code == 0
  assert 'over 3 episodes of 12 steps' in text
  assert '; 3 did not end and were cut off\n' in text
  for episode in minari.MinariDataset(output / 'data'):
    assert episode.truncations.tolist() == [False, False, False, True]
    assert not episode.terminations.any()
    first = np.argwhere(episode.observations[0])[0]
    assert first[0] == 0  # a new episode, whose ball is in the top row


@pytest.mark.parametrize(
  'flags, sentence',
  [
    ('--episodes 0', 'distacme: episodes must be at least 1, got 0.'),
    ('--seed -1', 'distacme: seed must be at least 0, got -1.'),
  ],
)
def test_a_mistake_is_answered_in_a_sentence(
  capsys, run_dir, output, flags, sentence
):
  code, text = run(capsys, run_dir, '--output', output, *flags.split())
  assert code == 2
  assert text.strip() == sentence
  assert not output.exists()


def test_what_is_there_already_is_refused_before_the_run_is_read(
  capsys, tmp_path
):
  code, text = run(capsys, tmp_path / 'no run', '--output', tmp_path)
  assert code == 2
  assert text == (
    f'distacme: {tmp_path} exists already. Choose another path for the dataset, '
    'or delete it.\n'
  )


def test_without_minari_the_extra_is_named(
  capsys, run_dir, output, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'minari', None)
  code, text = run(capsys, run_dir, '--output', output)
  assert code == 2
  assert "Run: pip install 'distacme[demonstrations]'" in text
  assert 'Traceback' not in text


def test_what_is_no_run_is_refused(capsys, tmp_path, output):
  code, text = run(capsys, tmp_path, '--output', output)
  assert code == 2
  assert 'is no run directory' in text


@pytest.fixture(name='small_files')
def fixture_small_files():
  """Lets no file of this process grow beyond 60 kB; Python ignores the signal."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_ends_in_a_sentence(
  capsys, run_dir, output, small_files
):
  code, text = run(capsys, run_dir, '--output', output)
  assert code == 2
  assert text == (
    f'distacme: {output} cannot be written (File too large). Make room there, or '
    'choose another path for the dataset.\n'
  )
  assert not list(output.parent.iterdir())


def test_a_line_comes_now_and_then(capsys, run_dir, output, monkeypatch):
  monkeypatch.setattr(record, '_LINE_PERIOD_S', 0.0)
  _, text = run(capsys, run_dir, '--episodes', 3, '--output', output)
  assert text.startswith(
    '1 of 3 episodes, 9 steps\n2 of 3 episodes, 18 steps\n'
  )


@pytest.fixture(name='interrupt_at')
def fixture_interrupt_at(monkeypatch):
  """Returns a function: Ctrl-C comes at a step, or at several steps."""

  def interrupt_at(*steps):
    count = 0
    act = recording._Steps.add

    def add(self, *args):
      nonlocal count
      count += 1
      if count in steps:
        signal.raise_signal(signal.SIGINT)
        for thread in threading.enumerate():  # the request is made in another
          if thread is not threading.current_thread() and thread.daemon:
            thread.join(0.05)
      act(self, *args)

    monkeypatch.setattr(recording._Steps, 'add', add)

  return interrupt_at


@pytest.mark.parametrize('steps', [(21,), (21, 22)])
def test_ctrl_c_keeps_the_episodes_that_are_whole(
  steps, capsys, run_dir, output, interrupt_at
):
  interrupt_at(*steps)
  code, text = run(capsys, run_dir, '--output', output)
  assert code == 130
  assert text.startswith(
    'interrupted: 2 of 50 episodes were whole and are kept\nmean return '
  )
  assert len(episodes(output, run_dir)) == 2
  assert os.listdir(output.parent) == [output.name]


def test_ctrl_c_before_the_first_whole_episode_leaves_nothing(
  capsys, run_dir, output, interrupt_at
):
  interrupt_at(3)
  code, text = run(capsys, run_dir, '--output', output)
  assert code == 130
  assert text == 'distacme: interrupted\n'
  assert not list(output.parent.iterdir())


# Other agents and environments.


class NestedCatch(wrappers.Wrapper):
  """Observes the board within a nest."""

  def observation_spec(self):
    board = super().observation_spec()
    return {'see': (board,), 'on': specs.Array((), np.bool_)}

  def _timestep(self, timestep):
    nest = {'see': (timestep.observation,), 'on': np.bool_(timestep.first())}
    return timestep._replace(observation=nest)


def nested_catch(seed):
  return NestedCatch(environments.catch(seed))


def loaded_run(agent, env, **config):
  """Returns a run that has learnt nothing, as `loading.load` returns runs."""
  experiment = experiment_lib.Experiment(
    run_config.RunConfig(agent=agent, env=env, max_eval_episode_steps=60),
    agents_by_name.agent_module(agent).Config(**config),
    environment=nested_catch if env == 'nested:catch' else None,
  )
  spec = experiment.environment_spec()
  made = experiment.make_agent(spec)
  state = made.initial_learner_state(seeding.learner_key(0))
  params = core.VersionedParams(0, made.actor_params(state))
  return loading.LoadedRun(experiment, spec, made, params)


@pytest.mark.parametrize('exploring', [True, False])
@pytest.mark.parametrize(
  'agent, env',
  [
    ('r2d2', 'bsuite:memory_len/3'),
    ('td3', 'gymnasium:Pendulum-v1'),
    ('dqn', 'nested:catch'),
    ('dqn', 'gymnasium:FrozenLake-v1'),
  ],
)
def test_agents_and_environments_of_all_kinds(
  agent, env, exploring, output, monkeypatch
):
  loaded = loaded_run(agent, env)
  monkeypatch.setattr(loading, 'load', lambda run_dir, **own: loaded)
  recorded = record.record('run', output, 3, exploring=exploring)
  back = list(datasets.read(output).checked(loaded.spec))
  assert recorded.returns == [
    float(e.rewards.sum(dtype=np.float64)) for e in back
  ]
  assert len(minari.MinariDataset(output / 'data')) == 3


def test_a_memory_is_carried_from_step_to_step(output, monkeypatch):
  loaded = loaded_run('r2d2', 'bsuite:memory_len/3')
  monkeypatch.setattr(loading, 'load', lambda run_dir, **own: loaded)
  record.record('run', output, 4)
  policy = greedy_policy.GreedyPolicy(loaded.agent, loaded.params, loaded.spec)
  for episode in datasets.read(output).checked(loaded.spec):
    policy.reset()
    for step in range(episode.num_steps):
      assert int(policy(episode.observations[step])) == episode.actions[step]


def test_frames_of_atari_are_stored_once(output, monkeypatch):
  loaded = loaded_run('dqn', 'atari:Pong', hidden_sizes=(8,))
  monkeypatch.setattr(loading, 'load', lambda run_dir, **own: loaded)
  recorded = record.record('run', output, 1)
  assert (recorded.num_steps, recorded.cut_off) == (60, 1)
  notes = json.loads((output / 'data/metadata.json').read_text())['distacme']
  assert notes['observation_form']['observation']['frames'] == 4
  (episode,) = datasets.read(output).checked(loaded.spec)
  assert episode.observations.shape == (61, 84, 84, 4)
  assert (output / 'data/main_data.hdf5').stat().st_size < 61 * 84 * 84


@pytest.fixture(name='own_run')
def fixture_own_run(run_dir, tmp_path, monkeypatch):
  """Returns a run in an environment of the user's own module."""
  shutil.copytree(run_dir, tmp_path / 'run')
  path = tmp_path / 'run/config.json'
  config = json.loads(path.read_text())
  config['run']['env'] = 'record_environments:catch'
  path.write_text(json.dumps(config))
  (tmp_path / 'record_environments.py').write_text(
    'from distacme.testing.environments import catch\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  yield tmp_path / 'run'
  sys.modules.pop('record_environments', None)


def test_an_environment_of_the_users_own_is_named_again(
  capsys, own_run, run_dir, output
):
  flags = (own_run, '--episodes', 2, '--output', output)
  code, text = run(capsys, *flags)
  assert code == 2
  assert 'record_environments:catch' in text
  assert not output.exists()
  code, text = run(capsys, *flags, '--env', 'record_environments:catch')
  assert code == 0, text
  assert '--env record_environments:catch --demonstrations' in text
  assert len(episodes(output, run_dir)) == 2
