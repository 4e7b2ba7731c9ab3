"""How a run stands: its limits, its reasons to stop."""

from __future__ import annotations

import dataclasses
import enum

# The state in which a worker sends its last report.
DONE = 'done'


class StopReason(str, enum.Enum):
  """Why a run ends."""

  SOLVED = 'solved'
  STEP_LIMIT = 'step_limit'
  TIME_LIMIT = 'time_limit'
  INTERRUPTED = 'interrupted'  # Ctrl-C
  TERMINATED = 'terminated'  # SIGTERM
  FAILED = 'failed'


def leaves_time(stop: str | None) -> bool:
  """Whether a run goes on, or has come to its end and may yet measure itself.

  Args:
    stop: as of `core.Directive`.
  """
  return stop is None or stop == StopReason.STEP_LIMIT


@dataclasses.dataclass(frozen=True)
class Limits:
  """When a run ends by itself; None is no limit."""

  max_env_steps: int | None = None  # summed over all actors, resumed ones too
  max_seconds: float | None = None  # wall clock, since this process's start

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value is not None and not value > 0:
        raise ValueError(
          f'{field.name} must be positive, got {value}; use None for no limit.'
        )
