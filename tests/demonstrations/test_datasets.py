"""Datasets on disk: bit for bit what was written, and Minari reads them, too."""

import errno
import io
import json
import os
import pathlib
import resource
import shutil
import sys

import numpy as np
import pytest
import tree

from distacme import specs
from distacme.demonstrations import dataset_writer
from distacme.demonstrations import datasets
from distacme.demonstrations import episodes as episodes_lib
from distacme.demonstrations import hdf5_files
from distacme.demonstrations import stored_form
from distacme.environments import spaces as spaces_lib

minari = pytest.importorskip('minari')
h5py = pytest.importorskip('h5py')
gymnasium_spaces = pytest.importorskip('gymnasium.spaces')

REWARDS = specs.Array((), np.float32)
DISCOUNTS = specs.BoundedArray((), np.float32, 0.0, 1.0)
ACTIONS = specs.DiscreteArray(3, np.int32)
POINT = specs.Array((2,), np.float32)
STACK = specs.FrameStack((36, 40, 4), np.uint8, 0, 255)


def spec_of(observations=POINT, actions=ACTIONS):
  return specs.EnvironmentSpec(observations, actions, REWARDS, DISCOUNTS)


def values(spec, count, random):
  """Returns random values [count, ...] of one leaf's spec."""
  shape = (count, *spec.shape)
  if isinstance(spec, specs.FrameStack):
    frames = random.uniform(0, spec.maximum.max(), shape[:-1])
    frames = frames.astype(spec.dtype)
    stacks = np.zeros(shape, spec.dtype)
    for step in range(count):
      for age in range(min(step + 1, shape[-1])):
        stacks[step, ..., -1 - age] = frames[step - age]
    return stacks
  if spec.dtype.kind == 'f':
    low, high = -1.0, 1.0
    if isinstance(spec, specs.BoundedArray):
      low, high = spec.minimum, spec.maximum
    return random.uniform(low, high, shape).astype(spec.dtype)
  low, high = (0, 1) if spec.dtype == np.bool_ else (0, 127)
  if isinstance(spec, specs.BoundedArray):
    low, high = spec.minimum, spec.maximum
  return random.integers(low, high, shape, endpoint=True).astype(spec.dtype)


def episode_of(spec, steps=4, terminated=True, seed=0, discounts=None):
  random = np.random.default_rng([seed, steps])
  ends = np.ones(steps, np.float32)
  ends[-1] = not terminated
  return episodes_lib.Episode(
    tree.map_structure(
      lambda leaf: values(leaf, steps + 1, random), spec.observations
    ),
    tree.map_structure(lambda leaf: values(leaf, steps, random), spec.actions),
    random.normal(size=steps).astype(np.float32),
    ends if discounts is None else np.float32(discounts),
  )


def write(path, spec, *written, seeds=None, **metadata):
  with dataset_writer.Writer(path, spec, metadata, 'dqn') as writer:
    for number, episode in enumerate(written):
      writer.add(episode, seeds and seeds[number])
  return path


def read(path, spec):
  return list(datasets.read(path).checked(spec))


def same(first, second):
  """Returns whether two episodes are the same bits of the same dtypes."""
  tree.assert_same_structure(first, second, check_types=False)
  return all(
    a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    for a, b in zip(tree.flatten(first), tree.flatten(second), strict=True)
  )


def assert_kept(path, spec, *written):
  back = read(path, spec)
  assert len(back) == len(written)
  assert all(map(same, written, back))


@pytest.fixture(name='path')
def fixture_path(tmp_path):
  return tmp_path / 'expert-v0'


def test_terminated_and_truncated_episodes_come_back_in_order(path):
  spec = spec_of()
  written = [episode_of(spec, n, n % 2 == 0, seed=n) for n in (1, 4, 3)]
  write(path, spec, *written)
  assert_kept(path, spec, *written)
  flags = [
    (e.terminations.tolist(), e.truncations.tolist())
    for e in minari.MinariDataset(path / 'data')
  ]
  assert flags == [
    ([False], [True]),
    ([False, False, False, True], [False] * 4),
    ([False] * 3, [False, False, True]),
  ]


NESTS = {
  'array': POINT,
  'number': specs.Array((), np.float32),
  'bool': specs.Array((3,), np.bool_),
  'int8': specs.BoundedArray((2,), np.int8, -5, 5),
  'uint32': specs.Array((2,), np.uint32),
  'float16': specs.BoundedArray((2, 2), np.float16, -1, 1),
  'nothing': specs.Array((0,), np.float32),
  'discrete': specs.DiscreteArray(4, np.int32),
  'picture': specs.BoundedArray((40, 36, 3), np.uint8, 0, 255),
  'small picture': specs.BoundedArray((7, 7, 3), np.uint8, 0, 255),
  'bytes': specs.Array((5,), np.uint8),
  'picture of floats': specs.BoundedArray((40, 36), np.float32, -1, 1),
  'volume': specs.Array((33, 33, 2, 3), np.uint8),
  'stack': STACK,
  'stack of numbers': specs.FrameStack((3,), np.float32, -1.0, 1.0),
  'stack in bounds of its own': specs.FrameStack(
    (2, 3), np.float32, np.full((2, 3), -1.0), np.full((2, 3), 1.0)
  ),
  'stack of one': specs.FrameStack((2, 1), np.float32, -1.0, 1.0),
  'tuple': (POINT, specs.Array((), np.bool_), (POINT,)),
  'many': (*[POINT] * 12,),  # Minari counts them as words: 10 before 2
  'dict': {'z': POINT, 'a': {'on': specs.Array((), np.bool_)}, 'm': (POINT,)},
  'odd keys': {'arm/joint': POINT, '%2F': POINT, '': POINT, '.': POINT},
  'dict of stacks': {'see': STACK, 'feel': POINT},
}


@pytest.mark.parametrize('name', NESTS)
def test_observations_come_back_bit_for_bit_and_minari_reads_them(name, path):
  spec = spec_of(NESTS[name])
  written = [episode_of(spec, steps, seed=steps) for steps in (1, 6)]
  write(path, spec, *written)
  assert_kept(path, spec, *written)
  dataset = minari.MinariDataset(path / 'data')
  assert [len(e) for e in dataset] == [1, 6]
  for episode in dataset:
    first = tree.map_structure(
      lambda leaf: np.asarray(leaf[0]), episode.observations
    )
    assert dataset.observation_space.contains(first)


@pytest.mark.parametrize(
  'actions',
  [
    ACTIONS,
    specs.BoundedArray((2,), np.float32, [-1.0, -0.1], [1.0, 0.3]),
    specs.BoundedArray((), np.float32, -1.0, 1.0),
    specs.BoundedArray((2,), np.int32, 0, [3, 5]),
    {'move': ACTIONS, 'aim': (specs.BoundedArray((2,), np.float32, -1, 1),)},
  ],
)
def test_actions_come_back_bit_for_bit(actions, path):
  spec = spec_of(actions=actions)
  written = [episode_of(spec), episode_of(spec, 7)]
  write(path, spec, *written)
  assert_kept(path, spec, *written)


@pytest.mark.parametrize(
  'discounts, kept',
  [
    ([1, 1, 0], False),
    ([1, 1, 1], False),
    ([1, 0, 1], True),  # a life was lost, and the game went on
    ([0.9, 1, 0], True),
    ([1, 1, 0.5], True),
  ],
)
def test_discounts_are_kept_where_the_flags_do_not_say_them(
  discounts, kept, path
):
  spec = spec_of()
  episode = episode_of(spec, 3, discounts=discounts)
  write(path, spec, episode)
  assert_kept(path, spec, episode)
  (minaris,) = minari.MinariDataset(path / 'data')
  assert bool(minaris.infos) == kept
  assert minaris.terminations.tolist() == [False, False, discounts[-1] == 0]
  assert minaris.truncations.tolist() == [False, False, discounts[-1] != 0]


def test_a_frame_is_stored_once_and_compressed(path):
  spec = spec_of(specs.FrameStack((84, 84, 4), np.uint8, 0, 255))
  episode = episode_of(spec, 100)  # of noise, which nothing compresses
  write(path, spec, episode)
  size = (path / 'data/main_data.hdf5').stat().st_size
  assert size < 1.05 * episode.observations.nbytes / 4
  blank = tree.map_structure(np.zeros_like, episode)
  shutil.rmtree(path)
  write(path, spec, blank)
  assert (path / 'data/main_data.hdf5').stat().st_size < 0.02 * size


def metadata_of(path):
  return json.loads((path / 'data/metadata.json').read_text())


def test_what_is_no_stack_is_stored_whole_with_all_episodes_before_it(path):
  spec = spec_of({'see': STACK, 'feel': POINT})
  written = [episode_of(spec, n, seed=n) for n in (2, 5, 3, 4)]
  written[2].observations['see'][0, 0, 0, 0] = 7  # before the first frame
  write(path, spec, *written, seeds=[3, None, 5, 6])
  assert_kept(path, spec, *written)
  notes = metadata_of(path)['distacme']['observation_form']
  assert notes == {"observation['see']": {'frames': 0, 'extra_axis': True}}
  assert os.listdir(path) == ['data']
  storage = minari.MinariDataset(path / 'data').storage
  infos = list(storage.get_episode_metadata(range(4)))
  assert [info.get('seed') for info in infos] == [3, None, 5, 6]


@pytest.mark.parametrize('place', [0, 2])
def test_a_frame_that_changed_within_a_stack_is_seen(place, path):
  spec = spec_of(STACK)
  episode = episode_of(spec, 6)
  episode.observations[4, 1, 1, place] += 1
  write(path, spec, episode)
  assert_kept(path, spec, episode)


def test_metadata_say_where_the_episodes_are_from(path):
  spec = spec_of()
  written = [episode_of(spec, 3), episode_of(spec, 5)]
  write(path, spec, *written, environment='catch', seed=7)
  metadata = metadata_of(path)
  assert metadata['dataset_id'] == 'expert-v0'
  assert metadata['algorithm_name'] == 'dqn'
  assert (metadata['total_episodes'], metadata['total_steps']) == (2, 8)
  ours = metadata['distacme']
  assert (ours['environment'], ours['seed']) == ('catch', 7)
  mean = np.mean([np.sum(e.rewards, dtype=np.float64) for e in written])
  assert ours['mean_return'] == pytest.approx(mean)
  assert str(path.parent) not in json.dumps(metadata)


@pytest.mark.parametrize(
  'folder, expected',
  [
    ('expert', 'expert-v0'),
    ('expert-v12', 'expert-v12'),
    ('catch expert.2', 'catch-expert-2-v0'),
    ('...', 'dataset-v0'),
    ('-v3', 'v3-v0'),
  ],
)
def test_ids_are_of_minaris_form(folder, expected):
  made = dataset_writer.dataset_id(pathlib.Path('/somewhere') / folder)
  assert made == expected
  minari.dataset.minari_dataset.parse_dataset_id(made)


@pytest.fixture(name='root')
def fixture_root(tmp_path, monkeypatch):
  """Returns Minari's root, an empty folder."""
  root = tmp_path / 'root'
  root.mkdir()
  monkeypatch.setenv('MINARI_DATASETS_PATH', str(root))
  return root


def test_a_copy_below_minaris_root_is_found_by_its_id(path, root):
  spec = spec_of()
  episode = episode_of(spec)
  write(path, spec, episode)
  shutil.copytree(path, root / 'expert-v0')
  write(root / 'tests/more-v1', spec, episode)
  assert list(minari.list_local_datasets()) == ['expert-v0', 'tests/more-v1']
  assert len(minari.load_dataset('tests/more-v1')) == 1
  for name in ('expert-v0', 'tests/more-v1'):
    assert same(*read(name, spec), episode)


# What may be given: a folder, a folder's data, an ID.


def test_a_folder_and_its_data_may_be_given_as_text_or_path(path, monkeypatch):
  spec = spec_of()
  episode = episode_of(spec)
  write(path, spec, episode)
  monkeypatch.chdir(path.parent)
  for given in (path, str(path), 'expert-v0', './expert-v0', path / 'data'):
    assert same(*read(given, spec), episode)


def test_episodes_are_read_one_at_a_time(path):
  spec = spec_of()
  write(path, spec, *[episode_of(spec, n) for n in (1, 2, 3)])
  with h5py.File(path / 'data/main_data.hdf5', 'a') as file:
    del file['episode_1/actions']
  found = datasets.read(path).read()
  assert next(found).num_steps == 1
  with pytest.raises(ValueError, match='episode 1 of .* cannot be read'):
    next(found)


# Datasets of others, written by Minari.


def foreign(path, observation_space, action_space, *buffers, format_='hdf5'):
  """Writes a dataset with Minari itself; returns its folder."""
  from minari.data_collector import episode_buffer
  from minari.dataset import minari_storage

  data = path / 'data'
  data.mkdir(parents=True)
  storage = minari_storage.MinariStorage.new(
    data, observation_space, action_space, data_format=format_
  )
  storage.update_metadata(
    {'dataset_id': 'foreign-v0', 'minari_version': minari.__version__}
  )
  storage.update_episodes(
    [
      episode_buffer.EpisodeBuffer(
        **{
          'terminations': [False, True],
          'truncations': [False, False],
          'rewards': [0.5, 1.0],
          **buffer,
        }  # fmt: skip
      )
      for buffer in buffers
    ]
  )
  return path


def box(*shape, dtype=np.float64):
  return gymnasium_spaces.Box(-1, 1, shape, dtype)


def foreign_points(path, **changes):
  buffer = {
    'observations': np.zeros((3, 2)),
    'actions': np.array([4, 5]),
    **changes,
  }
  actions = gymnasium_spaces.Discrete(3, start=4)
  return foreign(path, box(2), actions, buffer)


def test_others_datasets_are_read_in_32_bits_and_from_0(path):
  space = gymnasium_spaces.Dict(
    {
      'b': gymnasium_spaces.Tuple([box(2), gymnasium_spaces.Discrete(3)]),
      'a': gymnasium_spaces.Discrete(4, start=-2),
      'c': gymnasium_spaces.MultiBinary(2),
    }
  )
  foreign(
    path,
    space,
    gymnasium_spaces.Discrete(3, start=4),
    {
      'observations': {
        'a': np.array([-2, 0, 1]),
        'b': (np.full((3, 2), 0.5), np.array([2, 1, 0])),
        'c': np.array([[0, 1]] * 3, np.int8),
      },
      'actions': np.array([4, 6]),
      'infos': {'discounts': np.full(2, 0.5)},  # not ours: means something else
    },
  )
  spec = spec_of(
    spaces_lib.spec(space, 'observation'), specs.DiscreteArray(3, np.int32)
  )
  (episode,) = read(path, spec)
  assert episode.observations['a'].tolist() == [0, 2, 3]
  point, number = episode.observations['b']
  assert point.dtype == np.float32 and (point == 0.5).all()
  assert number.tolist() == [2, 1, 0]
  assert episode.observations['c'].dtype == np.int8
  assert episode.actions.tolist() == [0, 2]
  assert episode.actions.dtype == np.int32
  assert episode.rewards.tolist() == [0.5, 1.0]
  assert episode.discounts.tolist() == [1, 0]


def test_pictures_of_others_are_read_as_they_are(path):
  image = pytest.importorskip('PIL.Image')
  space = gymnasium_spaces.Box(0, 255, (40, 36, 3), np.uint8)
  noise = values(spaces_lib.spec(space, 'o'), 3, np.random.default_rng(0))
  buffer = {'observations': noise, 'actions': np.array([0, 1])}
  foreign(path, space, gymnasium_spaces.Discrete(2), buffer)
  spec = spec_of(
    spaces_lib.spec(space, 'observation'), specs.DiscreteArray(2, np.int32)
  )
  (episode,) = read(path, spec)
  file = io.BytesIO()
  image.fromarray(noise[1]).save(file, format='JPEG')
  assert (episode.observations[1] == np.array(image.open(file))).all()
  assert (episode.observations[1] != noise[1]).any()


@pytest.mark.parametrize('terminated, discount', [(False, 1), (True, 0)])
def test_an_end_without_a_flag_is_a_truncation(terminated, discount, path):
  foreign_points(path, terminations=[False, terminated])
  (episode,) = datasets.read(path).read()
  assert episode.discounts.tolist() == [1, discount]


def points_spec():
  return spec_of(
    specs.BoundedArray((2,), np.float32, -1, 1),
    specs.DiscreteArray(3, np.int32),
  )


@pytest.mark.parametrize(
  'changes, sentence',
  [
    (
      {'terminations': [True, False]},
      'terminations of episode 0 of {} end the episode at step 1 of 2',
    ),
    (
      {'truncations': [True, False]},
      'truncations of episode 0 of {} end the episode at step 1 of 2',
    ),
    (
      {'observations': np.zeros((2, 2))},
      'observations of episode 0 of {} has shape [2, 2], and with 2 rewards its '
      'first axis must be 3: one for each step, and the last observation.',
    ),
    ({'actions': np.array([4])}, 'actions of episode 0 of {} has shape [1]'),
    ({'actions': np.array([3, 4])}, 'actions of episode 0 of {} hold -1'),
    ({'terminations': [True]}, 'discounts of episode 0 of {} has shape [1]'),
    ({'rewards': np.zeros((2, 1))}, 'rewards of episode 0 of {} are float64[2'),
    ({'rewards': [0.0, 1e300]}, 'rewards of episode 0 of {} hold inf'),
    (
      {'observations': np.full((3, 2), 1e300)},
      'in episode 0 of {} observation is 1e+300, beyond float32',
    ),
    (
      {'observations': np.zeros((3, 5))},
      'in episode 0 of {} observation is float64[3, 5], and its space says '
      'float32[2] for each step.',
    ),
    ({'observations': np.full((3, 2), 1.5)}, 'episode 0 of {} hold 1.5'),
  ],
)
def test_an_episode_that_is_none_is_named(changes, sentence, path):
  foreign_points(path, **changes)
  with pytest.raises(ValueError) as error:
    read(path, points_spec())
  assert sentence.format(path / 'data') in str(error.value)


@pytest.mark.parametrize(
  'space, named',
  [
    (gymnasium_spaces.Text(5), "The space of observation['a'], Text("),
    (
      gymnasium_spaces.Box(0, 2**40, (2,), np.int64),
      "observation['a'] is int64",
    ),
  ],
)
def test_spaces_without_specs_are_refused(space, named, path):
  foreign(
    path,
    gymnasium_spaces.Dict({'a': space}),
    gymnasium_spaces.Discrete(2),
    {'observations': {'a': np.zeros((3, 2), int)}, 'actions': np.zeros(2, int)},
  )
  sentence = refused(path)
  assert sentence.startswith(f'{path / "data"} cannot be used: ')
  assert named in sentence


def test_other_formats_of_minari_are_read(path):
  pytest.importorskip('pyarrow')
  buffer = {'observations': np.zeros((3, 2)), 'actions': np.array([4, 5])}
  actions = gymnasium_spaces.Discrete(3, start=4)
  foreign(path, box(2), actions, buffer, format_='arrow')
  (episode,) = read(path, points_spec())
  assert episode.actions.tolist() == [0, 1]


# Whatever is wrong is said in one sentence.


def refused(path_or_id):
  with pytest.raises(ValueError) as error:
    datasets.read(path_or_id)
  return str(error.value)


def test_no_such_dataset_is_refused_with_names_that_are_close(path, root):
  write(root / 'expert-v0', spec_of(), episode_of(spec_of()))
  sentence = refused('exprt-v0')
  assert sentence == (
    f"'exprt-v0' is neither a folder nor the ID of a dataset in {root}. Did you "
    "mean 'expert-v0'? Check the spelling, record one with 'distacme record "
    "RUN_DIR --output DATASET', or fetch one that others have recorded with "
    "'minari download ID'."
  )
  for odd in ('something/else-v3', 'x' * 5000, '~nobody/data', 'a\0b'):
    assert 'Did you mean' not in refused(odd)


def test_no_root_is_made_and_nothing_is_fetched(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.delenv('MINARI_DATASETS_PATH', raising=False)

  def fetch(*args, **kwargs):
    raise AssertionError

  monkeypatch.setattr(minari, 'download_dataset', fetch)
  monkeypatch.setattr(minari.storage.hosting, 'download_dataset', fetch)
  assert 'D4RL/door/human-v2' in refused('D4RL/door/human-v2')
  assert not list(tmp_path.iterdir())


def test_folders_and_files_that_are_no_datasets_are_refused(tmp_path):
  assert f'{tmp_path} is no Minari dataset: it is a folder without' in refused(
    tmp_path
  )
  (tmp_path / 'data').mkdir()
  assert 'data/metadata.json. Give the folder of a dataset' in refused(tmp_path)
  file = tmp_path / 'file.hdf5'
  file.touch()
  assert 'it is a file, and no folder with' in refused(file)


def change_metadata(path, **changes):
  metadata = {**metadata_of(path), **changes}
  kept = {key: value for key, value in metadata.items() if value is not None}
  (path / 'data/metadata.json').write_text(json.dumps(kept))


@pytest.fixture(name='dataset')
def fixture_dataset(path):
  return write(path, spec_of(), episode_of(spec_of()), episode_of(spec_of(), 2))


@pytest.mark.parametrize(
  'text, found',
  [
    ('{"total', 'cannot be read as JSON (Unterminated string'),
    ('', 'cannot be read as JSON (Expecting value'),
    ('[' * 100_000, 'cannot be read as JSON ('),
    ('[1, 2]', 'holds [1, 2], and a dataset has a mapping there'),
  ],
)
def test_damaged_metadata_are_refused(text, found, dataset):
  (dataset / 'data/metadata.json').write_text(text)
  sentence = refused(dataset)
  assert sentence.startswith(f'{dataset / "data/metadata.json"} ')
  assert found in sentence
  assert sentence.endswith('Record or fetch the dataset again.')


def test_bytes_that_are_no_text_are_refused(dataset):
  (dataset / 'data/metadata.json').write_bytes(b'\xff\xfe\x00')
  assert 'cannot be read as JSON' in refused(dataset)


GRAPH = json.dumps({'type': 'Graph', 'nodes': 3})


@pytest.mark.parametrize(
  'changes, found',
  [
    ({'minari_version': '9.0'}, "is of Minari's version '9.0', which the"),
    ({'minari_version': None}, "is of Minari's version None"),
    ({'minari_version': '0.3.1'}, 'fetch another version of the dataset'),
    ({'total_episodes': 0}, 'has no episodes. Record some.'),
    ({'total_episodes': 'many'}, "says that it has 'many' episodes"),
    ({'total_episodes': True}, 'says that it has True episodes'),
    ({'total_episodes': 3}, 'is said to have 3 episodes, and they cannot be'),
    ({'observation_space': None}, 'does not say its observation_space, and no'),
    ({'action_space': {'type': 'Discrete'}}, 'does not say its action_space'),
    ({'observation_space': '{'}, 'cannot be opened: the format'),
    ({'observation_space': GRAPH}, '"type": "Graph"'),
    ({'action_space': '{"type": "Discrete", "n": 0, "start": 0}'}, 'opened'),
    ({'data_format': 'csv'}, "cannot be opened: the format 'csv'"),
    ({'data_format': None}, 'cannot be opened: the format None'),
    ({'distacme': 3}, 'the notes of observation are 3, which distacme never'),
    ({'distacme': {}}, 'the notes of observation are None'),
  ],
)
def test_metadata_that_minari_could_not_use_are_refused(
  changes, found, dataset
):
  change_metadata(dataset, **changes)
  sentence = refused(dataset)
  assert sentence.startswith(str(dataset / 'data'))
  assert found in sentence
  assert '\n' not in sentence


@pytest.mark.parametrize(
  'note',
  [
    3,
    {'frames': 'x'},
    {'frames': -1},
    {'frames': 10**9},
    {'frames': True},
    {'unheard_of': 1},
    {'extra_axis': True},  # of [2]
    {'extra_axis': 1},
  ],
)
def test_changed_notes_are_refused(note, dataset):
  ours = metadata_of(dataset)['distacme']
  ours['observation_form'] = {'observation': note}
  change_metadata(dataset, distacme=ours)
  assert 'the note of observation, which is stored as [2], is ' in refused(
    dataset
  )


def test_no_environment_is_made_for_a_dataset_without_spaces(
  dataset, monkeypatch
):
  gymnasium = pytest.importorskip('gymnasium')

  def make(*args, **kwargs):
    raise AssertionError

  monkeypatch.setattr(gymnasium, 'make', make)
  env = {'id': 'CartPole-v1', 'entry_point': 'os:system'}
  change_metadata(dataset, action_space=None, env_spec=json.dumps(env))
  assert 'no environment is made to ask for it' in refused(dataset)
  change_metadata(
    dataset, action_space='{"type": "Discrete", "n": 3, "start": 0}'
  )
  assert len(read(dataset, spec_of())) == 2


def test_an_arrow_dataset_without_pyarrow_names_what_to_install(
  dataset, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  monkeypatch.delitem(
    sys.modules, 'minari.dataset._storages.arrow_storage', raising=False
  )
  change_metadata(dataset, data_format='arrow')
  sentence = refused(dataset)
  assert "has the format 'arrow', and what reads it cannot be" in sentence
  assert sentence.endswith("Run: pip install 'minari[arrow]'")


@pytest.mark.parametrize('library', ['minari', 'h5py', 'PIL'])
def test_without_minari_the_extra_is_named(library, path, monkeypatch):
  monkeypatch.setitem(sys.modules, library, None)
  for act in (
    lambda: datasets.read(path),
    lambda: dataset_writer.Writer(path, spec_of(), {}),
  ):
    with pytest.raises(ImportError) as error:
      act()
    assert str(error.value).startswith('recorded episodes need minari, which ')
    assert "Run: pip install 'distacme[demonstrations]'" in str(error.value)


@pytest.mark.parametrize('share', [0.0, 0.5, 0.99])
def test_a_torn_file_is_refused(share, dataset):
  file = dataset / 'data/main_data.hdf5'
  os.truncate(file, int(share * file.stat().st_size))
  sentence = refused(dataset)
  assert sentence.startswith(f'{dataset / "data"} is said to have 2 episodes')
  assert sentence.endswith('Record or fetch the dataset again.')


def test_a_file_of_something_else_or_none_is_refused(dataset):
  file = dataset / 'data/main_data.hdf5'
  file.write_bytes(b'something else' * 1000)
  assert 'cannot be found (OSError: ' in refused(dataset)
  file.unlink()
  assert 'cannot be opened' in refused(dataset)


def test_bytes_that_changed_within_compressed_values_are_refused(path):
  spec = spec_of(specs.Array((40_000,), np.float32))
  write(path, spec, episode_of(spec))
  with h5py.File(path / 'data/main_data.hdf5') as file:
    offset = file['episode_0/observations'].id.get_chunk_info(0).byte_offset
  with open(path / 'data/main_data.hdf5', 'r+b') as file:
    file.seek(offset)
    file.write(b'\0' * 64)
  with pytest.raises(ValueError, match='episode 0 of .* cannot be read'):
    read(path, spec)


# Writing.


def test_what_is_there_already_is_refused_at_the_start(path):
  path.mkdir()
  with pytest.raises(
    ValueError, match=f'{path} exists already. Choose another'
  ):
    dataset_writer.Writer(path, spec_of(), {})
  assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError('no')])
def test_an_error_leaves_nothing_behind(error, path):
  with pytest.raises((KeyboardInterrupt, ValueError)):
    with dataset_writer.Writer(path, spec_of(), {}) as writer:
      writer.add(episode_of(spec_of()))
      (unfinished,) = path.parent.iterdir()
      assert unfinished.name.startswith('.expert-v0.unfinished-')
      raise error
  assert not list(path.parent.iterdir())


def test_a_folder_of_a_killed_process_is_replaced(path):
  left = path.with_name(f'.{path.name}.unfinished-{os.getpid()}') / 'data'
  left.mkdir(parents=True)
  (left / 'main_data.hdf5').write_bytes(b'torn')
  write(path, spec_of(), episode_of(spec_of()))
  assert os.listdir(path.parent) == [path.name]
  assert_kept(path, spec_of(), episode_of(spec_of()))


def test_folders_above_are_made_and_others_may_read(tmp_path):
  path = tmp_path / 'a/b/expert'
  write(path, spec_of(), episode_of(spec_of()))
  mask = os.umask(0)
  os.umask(mask)
  assert path.stat().st_mode & 0o777 == 0o777 & ~mask


def test_no_episodes_are_no_dataset(path):
  with pytest.raises(ValueError, match='would have no episodes'):
    write(path, spec_of())
  assert not list(path.parent.iterdir())


def test_an_episode_that_does_not_fit_is_refused_and_the_others_stay(path):
  spec = spec_of()
  good, bad = episode_of(spec), episode_of(spec)
  bad.actions[1] = 3
  with dataset_writer.Writer(path, spec, {}) as writer:
    writer.add(good)
    with pytest.raises(
      ValueError, match=f'actions of episode 1 of {path} hold'
    ):
      writer.add(bad)
    writer.add(good)
    assert writer.num_episodes == 2
    assert writer.num_steps == 8
  assert_kept(path, spec, good, good)


def test_an_interrupted_episode_leaves_no_half(path, monkeypatch):
  spec = spec_of({'a': POINT, 'b': POINT})
  write_leaf = hdf5_files.write

  def interrupted(group, name, values):
    if name == 'b':
      raise KeyboardInterrupt
    write_leaf(group, name, values)

  with dataset_writer.Writer(path, spec, {}) as writer:
    writer.add(episode_of(spec))
    monkeypatch.setattr(hdf5_files, 'write', interrupted)
    with pytest.raises(KeyboardInterrupt):
      writer.add(episode_of(spec))
  assert_kept(path, spec, episode_of(spec))
  with h5py.File(path / 'data/main_data.hdf5') as file:
    assert list(file) == ['episode_0']


@pytest.fixture(name='small_files')
def fixture_small_files():
  """Lets no file of this process grow beyond 60 kB; Python ignores the signal."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize('steps', [100, 2000])  # fails at the end, and at once
def test_a_disk_that_is_full_is_said(steps, path, small_files, capfd):
  spec = spec_of(specs.Array((50,), np.float32))
  with pytest.raises(ValueError) as error:
    write(path, spec, *[episode_of(spec, steps, seed=n) for n in range(4)])
  assert str(error.value) == (
    f'{path} cannot be written ({os.strerror(errno.EFBIG)}). Make room there, or '
    'choose another path for the dataset.'
  )
  assert not list(path.parent.iterdir())
  assert capfd.readouterr() == ('', '')  # HDF5 complains there


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match='cannot be written .Not a directory'):
    write(tmp_path / 'file/expert', spec_of(), episode_of(spec_of()))


def test_keys_that_are_no_words_are_refused(path):
  spec = spec_of({1: POINT})
  with pytest.raises(ValueError, match='1 is a key of a dict of the environ'):
    write(path, spec, episode_of(spec))


@pytest.mark.parametrize('key', ['', '.', '%', '%2E', 'a/b', 'a.b', 'ä', '\0'])
def test_spelled_keys_come_back(key):
  spelled = stored_form._spelled_key(key)
  assert spelled and '/' not in spelled and spelled != '.'
  assert stored_form._key(spelled) == key
