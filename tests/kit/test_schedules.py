"""Schedules against their formulas, and which are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from distacme.kit import schedules


def shares(schedule, steps):
  return [float(schedule.share(jnp.int32(step))) for step in steps]


def test_a_constant_schedule_leaves_everything_as_it_is():
  schedule = schedules.Schedule('epsilon')
  assert shares(schedule, [0, 1, 10**6]) == [1.0, 1.0, 1.0]
  assert schedule.step_size(0.3) == 0.3


@pytest.mark.parametrize(
  ('kind', 'quarter'),
  [('linear', 0.75), ('cosine', (1 + np.cos(np.pi / 4)) / 2)],
)
@pytest.mark.parametrize('end', [0.0, 0.2])
def test_a_schedule_falls_from_all_to_its_end_and_stays(kind, quarter, end):
  schedule = schedules.Schedule('epsilon', kind, 100, end)
  expected = [1.0, quarter, 0.5, 0.0, 0.0]
  np.testing.assert_allclose(
    shares(schedule, [0, 25, 50, 100, 1000]),
    end + (1 - end) * np.array(expected),
    atol=1e-6,
  )


@pytest.mark.parametrize(
  ('per_learner_step', 'counts'), [(1, 50), (12, 600), (0.5, 25)]
)
def test_an_optimisers_steps_are_not_the_learners(per_learner_step, counts):
  schedule = schedules.Schedule('learning_rate', 'linear', 100)
  step_size = schedule.step_size(0.3, per_learner_step)
  np.testing.assert_allclose(step_size(jnp.int32(counts)), 0.15, rtol=1e-6)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (('linear',), "x_schedule='linear' needs its length: set x_steps"),
    (('cosine', 0), "x_schedule='cosine' needs its length: set x_steps"),
    (('constant', 9), 'x_steps=9 is the length of no schedule: set x_schedule'),
    (
      ('constant', 0, 0.1),
      'x_end_share=0.1 is the end of no schedule: set x_schedule to',
    ),
    (('linear', -1), 'x_steps must not be negative, got -1'),
    (('linear', 9, 1.5), r'x_end_share must be in \[0, 1\], got 1\.5'),
    (('linear', 9, np.nan), r'x_end_share must be in \[0, 1\], got nan'),
    (
      ('steps', 9),
      "x_schedule must be one of constant, linear, cosine, got 's",
    ),
  ],
)
def test_what_is_no_schedule_is_refused(given, message):
  with pytest.raises(ValueError, match=message):
    schedules.Schedule('x', *given)
