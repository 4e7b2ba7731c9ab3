"""Replay restores its newest checkpoint, or the one before it, in every mode."""

import pathlib
import threading

import numpy as np
import pytest

from distacme import replay_spec
from distacme import specs
from distacme.replay.items import rows as rows_lib
from distacme.run import files
from tests.replay import backends

WINDOW = replay_spec.NStep(1, 0.9)
# The first sample at 20; then up to 20 inserts and 40 samples ahead.
SPEC = replay_spec.single(
  WINDOW,
  batch_size=10,
  max_size=100,
  min_size=20,
  samples_per_insert=2.0,
  error_buffer=40.0,
  priority_exponent=1.0,
)
QUEUE = replay_spec.queue(WINDOW, batch_size=10, max_size=100)
LAYOUT = rows_lib.make_layout(
  WINDOW,
  specs.EnvironmentSpec(
    observations=specs.Array((), np.float32),
    actions=specs.DiscreteArray(5),
    rewards=specs.Array((), np.float32),
    discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
  ),
)


class Kept:
  """A backend with a directory, and items that are told apart by a number."""

  def __init__(self, backend, spec, directory):
    self.replay = backend(spec, LAYOUT, directory)
    self.metrics, self.save = self.replay.metrics, self.replay.save
    self.stop, self.close = self.replay.stop, self.replay.close

  def insert(self, numbers, priority=1.0, table='experience'):
    rows = np.zeros((len(numbers), 1), LAYOUT.dtype)
    rows['reward'][:, 0] = numbers
    self.replay.insert(rows, np.full(len(rows), float(priority)), table)

  def sample(self):
    batch, info = self.replay.sample()
    return np.asarray(batch.reward).astype(int), info

  def has(self, name, value):
    """Returns what says whether a metric has a value."""
    return lambda: self.metrics()[name] == value


@pytest.fixture(name='open_', params=backends.ALL)
def fixture_open(request, tmp_path):
  """Returns a function that opens the replay of a directory."""
  opened = []

  def open_(spec=SPEC, backend=request.param):
    opened.append(Kept(backend, spec, tmp_path / 'replay'))
    return opened[-1]

  yield open_
  for replay in opened:
    replay.close()


def numbers_below(directory):
  return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


def settled(replay, wait_until):
  """Waits until what is drawn ahead is drawn."""
  if replay.replay.draws_ahead:
    wait_until(replay.has('sampled', 20))


def test_items_counts_and_priorities_come_back(open_, wait_until):
  first = open_()
  first.insert(range(20), priority=0.0)
  first.insert([20, 21])
  first.insert([22], priority=2.0)
  _, before = first.sample()
  settled(first, wait_until)
  counts = first.metrics()
  first.save()
  first.insert([23], priority=1e9)  # after the checkpoint: lost
  second = open_()
  assert second.metrics() == counts
  drawn, info = second.sample()
  assert set(drawn) <= {20, 21, 22}  # the others have no priority
  np.testing.assert_allclose(info.probability, np.where(drawn == 22, 0.5, 0.25))
  # Keys are those of before, so that late priorities reach their items.
  assert set(info.key) & set(before.key)


def test_a_queue_goes_on_in_its_order(open_):
  first = open_(QUEUE)
  first.insert(range(30))
  np.testing.assert_array_equal(first.sample()[0], range(10))
  # Up to a batch more may have left the queue for the sampler, and is lost.
  first.save()
  second = open_(QUEUE)
  second.insert(range(30, 50))
  drawn = second.sample()[0]
  assert drawn[0] in range(10, 21)
  np.testing.assert_array_equal(drawn, np.arange(10) + drawn[0])


def in_time(function):
  """Runs what would block for ever if it were wrong."""
  thread = threading.Thread(target=function, daemon=True)
  thread.start()
  thread.join(10)
  assert not thread.is_alive(), 'It is blocked.'


only_workers = pytest.mark.parametrize('open_', backends.ALL[1:], indirect=True)


@only_workers
def test_a_learner_goes_on_where_actors_were_blocked(open_, wait_until):
  replay = open_()

  def full():
    metrics = replay.metrics()
    return metrics['inserted'] == (2 * 20 + 40 + metrics['sampled']) // 2

  for _ in range(3):
    actor = threading.Thread(target=replay.insert, args=(range(100),))
    actor.start()
    wait_until(full)
    before = replay.metrics()
    replay.save()
    replay.stop()
    actor.join(10)
    replay = open_()
    assert replay.metrics()['inserted'] >= before['inserted']
    in_time(replay.sample)
    in_time(replay.sample)


@only_workers
def test_actors_go_on_where_the_learner_was_waiting(open_, wait_until):
  replay = open_()
  for rounds in range(3):
    replay.insert(range(20 if rounds == 0 else 10))
    most = 2 * replay.metrics()['inserted']
    for _ in range(4 if rounds == 0 else 2):
      in_time(replay.sample)
    wait_until(replay.has('sampled', most))
    replay.save()
    replay.stop()
    replay = open_()
    assert replay.metrics()['sampled'] == most


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turn_a_byte(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0xFF
  path.write_bytes(data)


@pytest.mark.parametrize('how', [truncate, turn_a_byte, pathlib.Path.unlink])
@pytest.mark.parametrize('name', ['tables.npz', 'contents.json'])
@pytest.mark.parametrize('open_', backends.ALL[:2], indirect=True)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
  open_, caplog, name, how
):
  first = open_()
  first.insert(range(30))
  before = first.save()
  first.insert(range(30, 35))
  newest = first.save()
  how(newest / name)
  second = open_()
  assert second.metrics()['inserted'] == 30
  second.sample()
  (record,) = caplog.records
  assert f'cannot restore replay from {newest} (' in record.getMessage()
  assert f'{before} is used instead' in record.getMessage()


@only_workers
def test_what_one_process_saved_is_restored_in_a_program(open_):
  first = open_(backend=backends.InProcess)
  first.insert(range(30))
  first.save()
  second = open_()
  assert second.metrics()['size'] == 30
  second.sample()


def test_what_another_format_saved_is_not_restored(open_, caplog):
  first = open_()
  first.insert(range(30))
  path = first.save()
  contents = files.read_json(path / 'contents.json') | {'backend': 'reverb'}
  files.write_json(path / 'contents.json', contents)
  assert open_().metrics()['size'] == 0
  (record,) = caplog.records
  assert 'with the backend reverb and this run has tables' in (
    record.getMessage()
  )


@pytest.mark.parametrize('open_', [backends.InProcess], indirect=True)
@pytest.mark.parametrize('inserts', [25, 130])  # 100 fit
def test_what_is_sampled_next_is_the_same_in_one_process(open_, inserts):
  first = open_()
  for number in range(inserts):
    first.insert([number], priority=number % 7)
  first.sample()
  first.save()
  second = open_()
  for replay in (first, second):
    replay.insert([1000, 1001], priority=5.0)
  for _ in range(4):
    (drawn, info), (again, info_again) = first.sample(), second.sample()
    np.testing.assert_array_equal(drawn, again)
    for leaf, other in zip(info, info_again, strict=True):
      np.testing.assert_array_equal(leaf, other)


def test_what_is_of_another_table_is_not_restored(open_, caplog):
  first = open_()
  first.insert(range(30))
  path = first.save()
  second = open_(QUEUE)
  assert second.metrics()['size'] == 0
  (record,) = caplog.records
  assert str(path) in record.getMessage()
  assert 'and there is no other: it starts anew' in record.getMessage()


@only_workers
def test_a_save_that_fails_leaves_nothing_and_the_next_is_whole(
  open_, tmp_path, monkeypatch
):
  replay = open_()
  replay.insert(range(30))
  write = files.write_json

  def fail(path, data):
    raise OSError('no space left')

  monkeypatch.setattr(files, 'write_json', fail)
  with pytest.raises(OSError, match='no space left'):
    replay.save()
  assert not any((tmp_path / 'replay' / 'unfinished').iterdir())
  monkeypatch.setattr(files, 'write_json', write)
  replay.insert([30])
  replay.save()
  assert open_().metrics()['inserted'] == 31


def test_two_checkpoints_are_kept_and_what_was_unfinished_goes(open_, tmp_path):
  replay = open_()
  for count in range(20, 24):
    replay.insert([count])
    replay.save()
  assert numbers_below(tmp_path / 'replay') == [3, 4]
  left = tmp_path / 'replay' / 'unfinished' / 'half'
  left.mkdir()
  (left / 'items.tfrecord').write_bytes(b'half')
  again = open_()
  assert not left.exists()
  assert again.metrics()['inserted'] == 4


TWO = replay_spec.ReplaySpec(
  (
    replay_spec.Table(
      'own',
      WINDOW,
      max_size=50,
      min_size=10,
      samples_per_insert=4.0,
      error_buffer=1000.0,
      priority_exponent=1.0,
    ),
    replay_spec.Table(
      'expert',
      WINDOW,
      max_size=30,
      min_size=10,
      samples_per_insert=None,
      priority_exponent=0.5,
      evicts=False,
      filled_by='demonstrations',
    ),
  ),
  batch_size=10,
  mixture=(0.6, 0.4),
)


def test_all_tables_come_back(open_):
  first = open_(TWO)
  first.insert(range(20), 1.0, 'own')
  first.insert(range(100, 125), 4.0, 'expert')
  for _ in range(5):
    first.sample()
  first.save()
  second = open_(TWO)
  counts = second.metrics()
  assert (counts['own/inserted'], counts['own/size']) == (20, 20)
  assert (counts['expert/inserted'], counts['expert/size']) == (25, 25)
  # Reverb's samplers fetch some ahead. One table gives none of 50 once in 1e11 runs.
  assert min(counts['own/sampled'], counts['expert/sampled']) > 0
  assert counts['sampled'] >= 50
  drawn, info = second.sample()
  np.testing.assert_array_equal(info.table, drawn >= 100)
  np.testing.assert_allclose(
    info.probability, np.where(info.table, 0.4 / 25, 0.6 / 20)
  )
  # What is never evicted is not, and the rest of its room is.
  second.insert(range(125, 130), 1.0, 'expert')
  if isinstance(second.replay, backends.Reverb):
    return  # which gives no answer
  with pytest.raises(
    ValueError, match="'expert' keeps what it holds, 30 items"
  ):
    second.insert([130], 1.0, 'expert')


@pytest.mark.parametrize('open_', [backends.InProcess], indirect=True)
def test_a_mixture_goes_on_as_it_would_have_in_one_process(open_):
  first = open_(TWO)
  first.insert(range(20), 1.0, 'own')
  first.insert(range(100, 125), 4.0, 'expert')
  for _ in range(3):
    first.sample()
  first.save()
  second = open_(TWO)
  for _ in range(10):
    (drawn, info), (again, info_again) = first.sample(), second.sample()
    np.testing.assert_array_equal(drawn, again)
    np.testing.assert_array_equal(info.table, info_again.table)


def test_a_checkpoint_of_the_layout_before_is_refused_with_a_sentence(
  open_, caplog
):
  first = open_()
  first.insert(range(30))
  path = first.save()
  contents = files.read_json(path / 'contents.json')
  contents['spec'] = (
    'ReplaySpec(window=NStep(n=1, discount=0.9), batch_size=10)'
  )
  files.write_json(path / 'contents.json', contents)
  assert open_().metrics()['size'] == 0
  (record,) = caplog.records
  assert (
    'it was saved with the spec ReplaySpec(window=NStep(n=1, discount=0.9), '
    'batch_size=10) and this run has ReplaySpec(tables=(Table('
  ) in record.getMessage()


def test_a_checkpoint_from_before_a_field_came_is_restored(open_):
  first = open_()
  first.insert(range(30))
  path = first.save()
  contents = files.read_json(path / 'contents.json')
  (table,) = contents['spec']['tables']
  del table['evicts'], table['window']['reward_scale']  # at their defaults
  files.write_json(path / 'contents.json', contents)
  assert open_().metrics()['size'] == 30


def test_a_checkpoint_with_a_field_to_come_is_refused(open_, caplog):
  first = open_()
  first.insert(range(30))
  path = first.save()
  contents = files.read_json(path / 'contents.json')
  contents['spec']['tables'][0]['shards'] = 2
  files.write_json(path / 'contents.json', contents)
  assert open_().metrics()['size'] == 0
  (record,) = caplog.records
  assert "'shards': 2" in record.getMessage()
