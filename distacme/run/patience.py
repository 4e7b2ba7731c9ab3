"""Says when somebody has waited for so long that a warning is due."""

from __future__ import annotations

import time


class Patience:
  """A wait: its warnings are due after a time, four times that, and so on."""

  def __init__(self, first_s: float):
    """Begins to wait.

    Args:
      first_s: seconds until the first warning.
    """
    self._start = time.monotonic()
    self._next_s = first_s

  @property
  def waited_s(self) -> float:
    """Seconds waited so far."""
    return time.monotonic() - self._start

  def is_over(self) -> bool:
    """Returns whether a warning is due, which then is given."""
    if self.waited_s < self._next_s:
      return False
    self._next_s *= 4
    return True
