"""A learner on several devices learns what it would on one.

Devices are decided before JAX starts, so the tests that need four run in a
process of their own.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from distacme import types
from distacme.learning import placement
from distacme.run import checkpoint
from tests.learning import test_updates

STEPS = 6


def state_after(made):
  return jax.tree.map(np.asarray, made.state)


def assert_close(a, b):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b
  )


def devices_of(nest):
  """Returns on how many devices the leaves lie."""
  return {len(leaf.devices()) for leaf in jax.tree.leaves(nest)}


def on(count, number, **kwargs):
  """Returns a learner after `STEPS` updates on so many devices, its sampler."""
  devices = jax.local_devices()[:number]
  chosen = placement.Placement(test_updates.CONFIG.batch_size, count, devices)
  return test_updates.learn(count, STEPS, placement=chosen, **kwargs)


class OnFourDevices:
  """What runs in a process with four devices; each method is a test below."""

  def same_state_and_priorities_as_one(self, folder):
    del folder
    for count in (1, 3):
      one, one_sampler = on(count, 1)
      four, four_sampler = on(count, 4)
      assert int(four.state.steps) == STEPS
      assert_close(state_after(one), state_after(four))
      np.testing.assert_allclose(
        list(one_sampler.priorities.values()),
        list(four_sampler.priorities.values()),
        rtol=1e-3,
        atol=1e-5,
      )
      assert devices_of(four._state) == {4}
      # Each device gets a share of each batch, not the whole.
      batch = four._batches.get().batch
      rows = {
        shard.data.shape[0 if count == 1 else 1]
        for leaf in jax.tree.leaves(batch)
        for shard in leaf.addressable_shards
      }
      assert rows == {test_updates.CONFIG.batch_size // 4}

  def all_local_devices_are_the_default(self, folder):
    del folder
    made, _ = test_updates.learn(1, 1)
    assert devices_of(made._state) == {4}

  def params_are_published_from_one_device_and_stay(self, folder):
    del folder
    made, _ = on(1, 4, publish_period=1)
    version, params = made._sink.newest()
    assert version == STEPS
    assert devices_of(params) == {1}
    before = jax.tree.map(np.array, params)
    made.step()
    jax.tree.map(np.testing.assert_array_equal, params, before)

  def checkpoints_fit_other_numbers_of_devices(self, folder):
    for number, other in ((4, 1), (1, 4)):
      saved = checkpoint.Checkpointer(folder / str(number))
      made, _ = on(1, number, save=saved.save)
      made.save()
      saved.wait()
      restored = saved.restore(test_updates.parts()[1])
      saved.close()
      assert restored.steps == STEPS
      state = jax.tree.map(np.array, restored.state)
      resumed, _ = on(1, other, state=restored.state, steps=restored.steps)
      assert devices_of(resumed._state) == {other}
      jax.tree.map(np.testing.assert_array_equal, state, state_after(made))
      jax.tree.map(np.testing.assert_array_equal, state, state_after(resumed))
      assert resumed.step()

  def a_batch_that_cannot_be_split_is_refused(self, folder):
    del folder
    with pytest.raises(
      ValueError,
      match='batch_size=30 is not divisible by the 4 devices of the learner; '
      "use a multiple of 4, or fewer devices, like '--learner-devices 0'",
    ):
      placement.Placement(30)


CASES = [name for name in vars(OnFourDevices) if not name.startswith('_')]


ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module', name='outcomes')
def fixture_outcomes(tmp_path_factory):
  """Returns what each case ended with, '' if well."""
  # At the end of the path: an installed distacme comes before the checkout's.
  code = (
    f'import runpy, sys; sys.path.append({str(ROOT)!r}); '
    "runpy.run_module('tests.learning.test_placement', run_name='__main__')"
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={
      **os.environ,
      'XLA_FLAGS': '--xla_force_host_platform_device_count=4',
      'JAX_PLATFORMS': 'cpu',
      'NPROC': '1',  # One device alone would take another runtime.
      'FOLDER': str(tmp_path_factory.mktemp('checkpoints')),
    },
    capture_output=True,
    text=True,
    timeout=240,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('name', CASES)
def test_four_devices(outcomes, name):
  assert not outcomes[name]


def test_one_cpu_device_takes_batches_as_they_are():
  chosen = placement.Placement(30, devices=jax.local_devices()[:1])
  batch = types.Batch(np.ones(30), np.ones(30))
  assert chosen.put_batch(batch) is batch


def main():
  import pathlib
  import traceback

  outcomes = {}
  for name in CASES:
    folder = pathlib.Path(os.environ['FOLDER']) / name
    folder.mkdir()
    try:
      getattr(OnFourDevices(), name)(folder)
      outcomes[name] = ''
    except Exception:
      outcomes[name] = traceback.format_exc()
  print(json.dumps(outcomes))


if __name__ == '__main__':
  main()
