"""What every environment and every vector must do, whatever its family."""

from __future__ import annotations

from absl.testing import absltest
import dm_env
from dm_env import test_utils
import numpy as np
import tree

from distacme import environments

FIRST, MID, LAST = dm_env.StepType


def contract_test(name, num_steps=60):
  """Returns dm_env's own tests of an environment, as a class."""

  class ContractTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
      return environments.make(name, seed=1)

    def make_action_sequence(self):
      for _ in range(num_steps):
        yield self.make_action()

    def tearDown(self):
      self.object_under_test.close()
      super().tearDown()

  return ContractTest


def random_action(random, spec):
  """Returns an action of `spec` for one row."""

  def draw(leaf):
    if leaf.dtype.kind in 'iu':
      return random.integers(leaf.minimum, leaf.maximum + 1, leaf.shape).astype(
        leaf.dtype
      )
    return random.uniform(
      np.maximum(leaf.minimum, -1.0), np.minimum(leaf.maximum, 1.0), leaf.shape
    ).astype(leaf.dtype)

  return tree.map_structure(draw, spec)


def random_actions(random, environment):
  """Returns actions for all rows of a vector."""
  rows = [
    random_action(random, environment.action_spec())
    for _ in range(environment.num_envs)
  ]
  return tree.map_structure(lambda *leaves: np.stack(leaves), *rows)


def episode(environment, num_steps=60):
  """Returns all that `environment` answers to a fixed sequence of actions."""
  random = np.random.default_rng(0)
  spec = environment.action_spec()
  return [environment.reset()] + [
    environment.step(random_action(random, spec)) for _ in range(num_steps)
  ]


def same(answers, other_answers):
  """Says whether two nests hold the same arrays."""
  flat, other_flat = tree.flatten(answers), tree.flatten(other_answers)
  return len(flat) == len(other_flat) and all(
    np.array_equal(a, b) for a, b in zip(flat, other_flat, strict=True)
  )


def check_vector(environment, num_steps):
  """Asserts the contract of `core.VectorEnvironment` for some random steps.

  Returns how many rows came FIRST, MID and LAST.
  """
  random = np.random.default_rng(0)
  checked = environments.check_first_episode(environment, num_steps + 1)
  timesteps = [checked.reset()]
  copies = [tree.map_structure(np.copy, timesteps[0])]
  rows = environment.num_envs
  assert timesteps[0].step_type.tolist() == [FIRST] * rows
  for _ in range(num_steps):
    timesteps.append(checked.step(random_actions(random, environment)))
    copies.append(tree.map_structure(np.copy, timesteps[-1]))
  for before, after in zip(timesteps[:-1], timesteps[1:], strict=True):
    started = after.step_type == FIRST
    # FIRST comes after LAST, there and nowhere else.
    np.testing.assert_array_equal(started, before.step_type == LAST)
    assert not after.reward[started].any()
    assert (after.discount[started] == 1.0).all()
  for timestep, kept in zip(timesteps, copies, strict=True):
    tree.map_structure(np.testing.assert_array_equal, timestep, kept)
    for array, dtype in (
      (timestep.step_type, np.int8),
      (timestep.reward, np.float32),
      (timestep.discount, np.float32),
    ):
      assert (array.shape, array.dtype) == ((rows,), dtype)
    tree.map_structure(
      lambda spec, leaf: [spec.validate(row) for row in leaf],
      environment.observation_spec(),
      timestep.observation,
    )
  environment.close()
  step_types = np.stack([timestep.step_type for timestep in timesteps])
  return np.bincount(step_types.ravel(), minlength=3).tolist()
