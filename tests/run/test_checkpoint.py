"""Checkpoints: what was saved comes back, and nothing else is taken for it."""

import asyncio
import gc
import json
import logging
import pathlib
import resource
import sys

import jax
import numpy as np
import pytest

from distacme import core
from distacme import specs
from distacme.agents import dqn
from distacme.run import checkpoint
from distacme.run import files as files_lib
from distacme.run import run_directory
from distacme.testing import environments

SPEC = specs.make_environment_spec(environments.Catch(seed=0))


def dqn_state(seed=0, **changes):
  agent = dqn.make_agent(dqn.Config(hidden_sizes=(4,), **changes), SPEC)
  key = jax.random.key_data(jax.random.key(seed))
  return jax.jit(agent.initial_learner_state)(key)


@pytest.fixture
def save(tmp_path):
  """Returns a function that saves states in order and closes."""

  def save(*states):
    checkpointer = checkpoint.Checkpointer(tmp_path)
    for steps, state in states:
      checkpointer.save(steps, state)
    checkpointer.close()

  return save


def restore(directory, like):
  checkpointer = checkpoint.Checkpointer(directory)
  try:
    return checkpointer.restore(like)
  finally:
    checkpointer.close()


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def test_what_cannot_be_read_back_is_said_with_the_first_checkpoint(
  tmp_path, monkeypatch
):
  # As of a library that finds less than it wrote.
  monkeypatch.setattr(run_directory, 'check_path', lambda *_: None)
  checkpointer = checkpoint.Checkpointer(tmp_path / '[x]')
  checkpointer.save(1, dqn_state())
  with pytest.raises(files_lib.NotWrittenError, match='be read back') as it:
    checkpointer.save(2, dqn_state())
  assert str(tmp_path / '[x]' / '1') in str(it.value)
  checkpointer.close()


def test_only_the_first_checkpoint_is_read_back(tmp_path, monkeypatch):
  checkpointer = checkpoint.Checkpointer(tmp_path)
  read = []
  monkeypatch.setattr(
    checkpointer, '_read', lambda steps, like: read.append(steps)
  )
  for steps in (1, 2, 3):
    checkpointer.save(steps, dqn_state())
  checkpointer.close()
  assert read == [1]


def test_a_path_that_its_library_takes_for_a_pattern_is_refused(tmp_path):
  with pytest.raises(ValueError, match='Choose another run_dir'):
    checkpoint.Checkpointer(tmp_path / '[x]')
  assert not (tmp_path / '[x]').exists()


@pytest.mark.parametrize('name', ['[x]', 'a*', 'a?', '{a,b}'])
def test_a_run_may_be_moved_to_where_none_can_be_made(tmp_path, name):
  checkpointer = checkpoint.Checkpointer(tmp_path / 'plain')
  checkpointer.save(1, dqn_state())
  checkpointer.close()
  (tmp_path / 'plain').rename(tmp_path / name)
  assert checkpoint.read(tmp_path / name, dqn_state()).steps == 1


def test_there_is_nothing_to_restore_in_a_new_directory(tmp_path):
  assert restore(tmp_path / 'new', dqn_state()) is None


def test_a_learner_state_comes_back_as_it_was(tmp_path, save):
  state = dqn_state()
  save((5, state))
  for like in (dqn_state(seed=1), jax.eval_shape(lambda: dqn_state())):
    restored = restore(tmp_path, like)
    assert restored.steps == 5
    assert_same(restored.state, state)


def test_the_newest_is_restored_and_few_are_kept(tmp_path, save):
  states = [{'w': np.full(3, float(i), np.float32)} for i in range(5)]
  save(*enumerate(states))
  restored = restore(tmp_path, states[0])
  assert restored.steps == 4
  assert_same(restored.state, states[4])
  kept = [path.name for path in tmp_path.iterdir() if path.name.isdigit()]
  assert sorted(kept) == ['3', '4']


def test_a_state_is_saved_once(tmp_path, save):
  save((5, {'w': np.zeros(2)}), (5, {'w': np.ones(2)}))
  assert not restore(tmp_path, {'w': np.zeros(2)}).state['w'].any()


def test_a_run_that_went_back_saves_over_what_came_later(tmp_path, save):
  save((5, {'w': np.zeros(2)}), (9, {'w': np.zeros(2)}))
  save((7, {'w': np.ones(2)}))
  restored = restore(tmp_path, {'w': np.zeros(2)})
  assert restored.steps == 7
  assert restored.state['w'].all()


@pytest.mark.parametrize(
  ('like', 'difference'),
  [
    (
      {'w': np.zeros((2, 4), np.float32)},
      r'w: .* \(2, 3\) .* float32 \(2, 4\)',
    ),
    (
      {'w': np.zeros((2, 3), np.int32)},
      r'w: float32 .* saved, int32 .* needed',
    ),
    (
      {'v': np.zeros((2, 3), np.float32)},
      r'v: nothing saved, float32 \(2, 3\)',
    ),
    ({}, r'w: float32 \(2, 3\) saved, nothing needed'),
  ],
)
def test_another_structure_is_refused_by_what_differs(
  like, difference, tmp_path, save
):
  save((5, {'net': {'w': np.zeros((2, 3), np.float32)}, 'n': np.int32(0)}))
  with pytest.raises(ValueError, match=f'net/{difference}') as error:
    restore(
      tmp_path, {'net': like, 'n': np.int32(0)} if like else {'n': np.int32(0)}
    )
  assert str(tmp_path / '5') in str(error.value)
  assert 'another run directory' in str(error.value)


def test_a_state_of_another_network_is_refused(tmp_path, save):
  save((5, dqn_state()))
  with pytest.raises(ValueError, match='dueling_head/.* nothing saved.*; ...'):
    restore(tmp_path, dqn_state(dueling=True))


# Checkpoints that a disk or a file system has damaged.


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turn_a_byte(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0xFF
  path.write_bytes(data)


def empty(path):
  path.write_bytes(b'')


def damage(checkpoint_path, what, how):
  """Damages the arrays, the largest file, or another file by its name."""
  files = [path for path in checkpoint_path.rglob('*') if path.is_file()]
  if what == 'arrays':
    how(max(files, key=lambda path: path.stat().st_size))
  else:
    how(*checkpoint_path.glob(what))


def noise(seed):
  # Not to be compressed, so that the arrays are the largest file.
  values = np.random.default_rng(seed).random(5000, np.float32)
  return {'w': values, 'steps': np.array(seed, np.int32)}


@pytest.mark.parametrize(
  ('what', 'how'),
  [
    ('arrays', truncate),
    ('arrays', turn_a_byte),
    ('arrays', pathlib.Path.unlink),
    ('default/_METADATA', truncate),
    ('default/_METADATA', pathlib.Path.unlink),
    ('default/manifest.ocdbt', empty),
  ],
)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
  what, how, tmp_path, save, caplog
):
  save((1, noise(1)), (2, noise(2)))
  damage(tmp_path / '2', what, how)
  restored = restore(tmp_path, noise(0))
  assert restored.steps == 1
  assert_same(restored.state, noise(1))
  (record,) = [r for r in caplog.records if r.name == 'distacme.run.notices']
  message = record.getMessage()
  assert f'cannot read the checkpoint {tmp_path / "2"} (' in message
  assert f'{tmp_path / "1"} is used instead' in message


def test_where_no_checkpoint_is_whole_nothing_starts_over(tmp_path, save):
  save((1, noise(1)), (2, noise(2)))
  for steps in '12':
    damage(tmp_path / steps, 'arrays', truncate)
  with pytest.raises(ValueError, match='there is no other') as error:
    restore(tmp_path, noise(0))
  assert str(tmp_path / '1') in str(error.value)
  assert str(tmp_path / '2') in str(error.value)


def test_a_damaged_checkpoint_is_saved_again(tmp_path, save):
  save((1, noise(1)), (2, noise(2)))
  damage(tmp_path / '2', 'arrays', turn_a_byte)
  checkpointer = checkpoint.Checkpointer(tmp_path)
  assert checkpointer.restore(noise(0)).steps == 1
  checkpointer.save(2, noise(2))  # the run comes by there once more
  checkpointer.close()
  restored = restore(tmp_path, noise(0))
  assert restored.steps == 2
  assert_same(restored.state, noise(2))


def coroutine_that_fails_when_dropped(path):
  """Returns a coroutine of code in `path` that awaits, and raises if it is closed."""
  source = f"""
async def wait(awaited):
  try:
    await awaited
  except GeneratorExit:
    raise RuntimeError('dropped in {path}')
"""
  names = {}
  exec(compile(source, path, 'exec'), names)

  class Never:
    def __await__(self):
      yield

  return names['wait'](Never())


def test_what_answers_too_late_is_not_printed_and_all_else_is(
  tmp_path, capfd, monkeypatch
):
  # What pytest looks at is what Python would print.
  monkeypatch.setattr(sys, 'unraisablehook', sys.__unraisablehook__)
  checkpoint._ignore_late_answers.cache_clear()
  checkpoint.Checkpointer(tmp_path).close()
  for message in ('Event loop is closed', 'something else'):

    class Unraisable:
      def __init__(self, message):
        self._message = message

      def __del__(self):
        raise RuntimeError(self._message)

    made = Unraisable(message)
    del made
  for path in ('orbax/serialization.py', 'elsewhere.py'):
    given_up = coroutine_that_fails_when_dropped(path)
    given_up.send(None)
    del given_up
  printed = capfd.readouterr().err
  assert 'something else' in printed
  assert 'Event loop is closed' not in printed
  assert 'dropped in elsewhere.py' in printed
  assert 'dropped in orbax' not in printed
  checkpoint._ignore_late_answers.cache_clear()  # pytest's hook is back


def test_only_tasks_that_orbax_has_given_up_may_fail_in_silence(
  tmp_path, caplog
):
  checkpoint.Checkpointer(tmp_path).close()

  async def fail(path):
    exec(compile('raise OSError("full")', path, 'exec'))

  async def forget():
    for path in ('orbax/serialization.py', 'elsewhere.py'):
      tasks = [asyncio.create_task(fail(path))]
      await asyncio.wait(tasks)
      del tasks  # which nobody has asked for its exception
      gc.collect()

  with caplog.at_level(logging.ERROR, logger='asyncio'):
    asyncio.run(forget())
  (record,) = caplog.records
  assert 'elsewhere.py' in logging.Formatter().format(record)


def test_a_run_that_ends_where_it_was_resumed_saves_nothing_twice(
  tmp_path, save
):
  save((1, noise(1)), (2, noise(2)))
  damage(tmp_path / '2', 'arrays', truncate)
  checkpointer = checkpoint.Checkpointer(tmp_path)
  checkpointer.save(checkpointer.restore(noise(0)).steps, noise(1))
  checkpointer.close()
  assert restore(tmp_path, noise(0)).steps == 1


def test_a_failure_that_orbax_tells_at_its_end_is_a_sentence(
  tmp_path, monkeypatch
):
  checkpointer = checkpoint.Checkpointer(tmp_path)
  close = checkpointer._manager.close

  def fail():
    close()
    raise ValueError('RESOURCE_EXHAUSTED: No space left on device')

  monkeypatch.setattr(checkpointer._manager, 'close', fail)
  with pytest.raises(files_lib.NotWrittenError, match='No space left'):
    checkpointer.close()


# The best params of a run.


def offer(directory, *offers):
  best = checkpoint.BestParams(directory)
  for version, mean in offers:
    params = {'version': np.array(version, np.int32)}
    best.offer(core.VersionedParams(version, params), mean)
  best.close()
  return best


def kept(directory):
  """Returns version and score of the best params."""
  restored = restore(directory, {'version': np.array(0, np.int32)})
  score = json.loads((directory / 'score.json').read_text())
  assert score['params_version'] == restored.steps
  return int(restored.state['version']), score['mean_return']


def test_a_disk_that_is_full_is_named_and_leaves_the_last_checkpoint(
  tmp_path, save
):
  first, large = ({'w': np.random.default_rng(0).random(n)} for n in (9, 9_000))
  save((1, first))
  checkpointer = checkpoint.Checkpointer(tmp_path)
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  # A file that would be longer cannot be written: Python ignores the signal.
  resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, hard))
  try:
    with pytest.raises(OSError, match=r'can be written to .* Make room'):
      checkpointer.save(2, large)
      checkpointer.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert restore(tmp_path, first).steps == 1


def test_only_better_params_are_kept(tmp_path):
  best = offer(tmp_path, (1, 0.5), (2, 0.4), (3, 0.9), (4, 0.9), (5, -1.0))
  assert kept(tmp_path) == (3, 0.9)
  assert best.mean_return == 0.9


def test_a_resumed_run_has_to_beat_the_run_before(tmp_path):
  offer(tmp_path, (10, 0.5))
  offer(tmp_path, (20, 0.4))
  assert kept(tmp_path) == (10, 0.5)
  offer(tmp_path, (20, 0.6))
  assert kept(tmp_path) == (20, 0.6)


def test_better_params_of_an_earlier_version_replace_later_ones(tmp_path):
  # The run was resumed from a checkpoint before its best.
  offer(tmp_path, (20, 0.5))
  offer(tmp_path, (15, 0.6))
  assert kept(tmp_path) == (15, 0.6)


def test_a_return_that_is_no_number_is_not_the_best(tmp_path):
  best = offer(tmp_path, (1, float('nan')), (2, -5.0), (3, float('nan')))
  assert kept(tmp_path) == (2, -5.0)
  assert best.mean_return == -5.0


@pytest.mark.parametrize('damaged', ['', '{"mean_ret', '{}'])
def test_where_the_best_score_is_damaged_it_starts_over(
  tmp_path, caplog, damaged
):
  offer(tmp_path, (10, 0.5))
  (tmp_path / 'score.json').write_text(damaged)
  offer(tmp_path, (20, 0.4))
  assert kept(tmp_path) == (20, 0.4)
  assert f'{tmp_path / "score.json"} is damaged (' in caplog.text
  assert 'the next evaluation counts as the best' in caplog.text


def test_where_the_checksums_are_damaged_checkpoints_are_read_unchecked(
  tmp_path, save, caplog
):
  save((1, noise(1)))
  (tmp_path / 'checksums.json').write_text('')
  assert restore(tmp_path, noise(0)).steps == 1
  assert 'checkpoints there are read unchecked' in caplog.text


def test_a_run_without_evaluations_leaves_nothing(tmp_path):
  offer(tmp_path / 'best')
  assert not (tmp_path / 'best').exists()


def test_damage_that_orbax_refuses_is_a_sentence(tmp_path, save):
  save((1, dqn_state()))
  for read_only in (False, True):
    (tmp_path / '1' / '_CHECKPOINT_METADATA').write_text('[]')
    with pytest.raises(
      ValueError, match='cannot be opened .* move the damaged'
    ):
      checkpoint.Checkpointer(tmp_path, read_only=read_only)


def test_where_the_best_score_is_gone_a_warning_says_so(tmp_path, caplog):
  offer(tmp_path, (1, 0.5))
  (tmp_path / 'score.json').unlink()
  offer(tmp_path, (2, 0.2))
  assert 'score.json is gone: the next evaluation counts as the best' in (
    caplog.text
  )
  assert kept(tmp_path) == (2, 0.2)
