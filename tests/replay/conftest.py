"""The small environment, layout and waiting that the replay tests share."""

import time

import numpy as np
import pytest

from distacme import replay_spec
from distacme import specs
from distacme.replay.items import rows


@pytest.fixture(scope='session')
def layout():
  """Rows with nests of several dtypes as observation and action, and extras."""
  return rows.make_layout(
    replay_spec.NStep(1, 0.9),
    specs.EnvironmentSpec(
      observations={
        'image': specs.Array((2, 3), np.uint8),
        'place': (specs.Array((), np.int32), specs.Array((2,), np.float32)),
      },
      actions={
        'choice': (specs.DiscreteArray(5),),
        'torque': specs.BoundedArray((2,), np.float32, -1.0, 1.0),
      },
      rewards=specs.Array((), np.float32),
      discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
    ),
    extras={'greedy': specs.Array((), np.bool_)},
  )


@pytest.fixture
def wait_until():
  """Returns a function that waits for a condition, and fails after a while."""

  def wait(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
      assert time.monotonic() < deadline, 'The condition never came true.'
      time.sleep(0.002)
    return value

  return wait
