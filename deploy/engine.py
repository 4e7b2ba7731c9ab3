"""The engine of a cluster, as supervision of a job asks it."""

from __future__ import annotations

from collections.abc import Collection
import enum
from typing import Protocol

from distacme.deploy import cluster as cluster_lib


class JobState(str, enum.Enum):
  """The states of a job."""

  WAITING = 'waiting'  # to be started, also to be started anew
  RUNNING = 'running'
  ENDING = 'ending'
  GONE = 'gone'  # and not to be started anew
  UNKNOWN = 'unknown'  # the engine does not answer


class Engine(Protocol):
  """The engine of a cluster, as seen from within a job."""

  # Seconds between the signal by which the engine ends a job and the kill, less what
  # supervision itself needs.
  grace_s: float

  def this_job(self) -> str:
    """Returns the number of this process's job; '' if it has none."""

  def host(self, cluster: cluster_lib.Cluster) -> str:
    """Returns the address at which other hosts of the cluster reach this host.

    Args:
      cluster: as the user describes it.

    Raises:
      ValueError: if there is no such address.
    """

  def state(self, job: str) -> JobState:
    """Returns the state of a job."""

  def is_cancelled(self) -> bool:
    """Returns whether somebody has cancelled this process's job."""

  def start_anew(self) -> bool:
    """Has this job started anew, perhaps on another host, after its end.

    Returns:
      False if the engine refused.
    """

  def cancel(self, jobs: Collection[str]) -> bool:
    """Cancels jobs; those that have ended stay as they are.

    Returns:
      False if the engine does not answer.
    """
