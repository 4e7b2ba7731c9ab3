"""Fields outside of their range are named with what they are."""

import dataclasses
import math

import pytest

from distacme import config_checks


@dataclasses.dataclass(frozen=True)
class Config:
  first: float = 1.0
  second: float | tuple[int, ...] = 1


def test_a_field_may_be_as_much_as_another_and_no_more():
  config_checks.check_at_most(Config(1.0, 1), 'first', 'second')
  with pytest.raises(
    ValueError, match=r'first must not be more than second=1, got 1\.5\.'
  ):
    config_checks.check_at_most(Config(1.5, 1), 'first', 'second')


@pytest.mark.parametrize(
  ('check', 'right', 'wrong', 'message'),
  [
    (
      config_checks.check_positive,
      (1e-9, math.inf),
      (0, -1, math.nan),
      'be positive',
    ),
    (
      config_checks.check_not_negative,
      (0, math.inf),
      (-1e-9, math.nan),
      'not be neg',
    ),
    (
      config_checks.check_finite,
      (-1e9, 0, 7.5),
      (math.inf, -math.inf, math.nan),
      'be fin',
    ),
    (
      config_checks.check_at_least_one,
      (1, 7, (), (3, 1)),
      (0, (3, 0)),
      'be at least',
    ),
    (
      config_checks.check_share,
      (0, 0.5, 1),
      (-0.1, 1.1, math.nan),
      r'be in \[0, 1\]',
    ),
  ],
)
def test_only_what_is_in_range_passes(check, right, wrong, message):
  for value in right:
    check(Config(second=value), 'first', 'second')
  for value in wrong:
    config = Config(second=value)
    check(config, 'first')
    with pytest.raises(ValueError, match=f'second must {message}') as caught:
      check(config, 'first', 'second')
    assert str(caught.value).endswith(f', got {value}.')


def test_whole_numbers_become_ints_and_others_are_refused():
  config = Config(1e6, None)
  config_checks.make_whole(config, 'first', 'second')
  assert config == Config(1_000_000, None)
  assert type(config.first) is int
  for wrong in (1.5, math.inf, math.nan, '7', ()):
    with pytest.raises(
      ValueError, match=r'first must be a whole number, got .*\.$'
    ):
      config_checks.make_whole(Config(wrong), 'first')
