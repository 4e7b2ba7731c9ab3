"""Checks of a frozen Config's fields, in one wording; NaN passes none of them."""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any


def make_whole(config: Any, *names: str) -> None:
  """Turns each field that is a whole number into an int; None stays None.

  `1e6` is a float in Python, and other hosts are told the type.

  Raises:
    ValueError: if a field is no whole number.
  """
  for name in names:
    value = getattr(config, name)
    if value is None:
      continue
    try:
      whole = int(value)
    except (TypeError, ValueError, OverflowError):  # of texts, NaN, infinity
      whole = None
    if whole is None or isinstance(value, str) or whole != value:
      raise ValueError(f'{name} must be a whole number, got {value!r}.')
    object.__setattr__(config, name, whole)


def check_positive(config: Any, *names: str) -> None:
  """Raises ValueError unless each field is above 0."""
  _check(config, names, 'be positive', lambda value: value > 0)


def check_not_negative(config: Any, *names: str) -> None:
  """Raises ValueError unless each field is 0 or above."""
  _check(config, names, 'not be negative', lambda value: value >= 0)


def check_finite(config: Any, *names: str) -> None:
  """Raises ValueError unless each field is a finite number."""
  _check(config, names, 'be finite', math.isfinite)


def check_at_least_one(config: Any, *names: str) -> None:
  """Raises ValueError unless each field, a count or a tuple of them, is >= 1."""

  def holds(value: Any) -> bool:
    counts = value if isinstance(value, tuple) else (value,)
    return all(count >= 1 for count in counts)

  _check(config, names, 'be at least 1', holds)


def check_share(config: Any, *names: str) -> None:
  """Raises ValueError unless each field is in [0, 1]."""
  _check(config, names, 'be in [0, 1]', lambda value: 0 <= value <= 1)


def check_at_most(config: Any, name: str, limit: str) -> None:
  """Raises ValueError unless the field `name` is at most the field `limit`."""
  value, most = getattr(config, name), getattr(config, limit)
  if not value <= most:
    raise ValueError(
      f'{name} must not be more than {limit}={most}, got {value}.'
    )


def _check(
  config: Any,
  names: tuple[str, ...],
  what: str,
  holds: Callable[[Any], bool],
) -> None:
  for name in names:
    value = getattr(config, name)
    if not holds(value):
      raise ValueError(f'{name} must {what}, got {value}.')
