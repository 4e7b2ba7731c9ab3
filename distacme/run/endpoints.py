"""Where the services of a run listen, found by the name of the worker."""

from __future__ import annotations

from collections.abc import Callable
import logging
import math
import os
import pathlib
import time
from typing import NamedTuple

from distacme.run import files

_POLL_S = 0.05
_EXPLAIN_AFTER_S = 5.0  # four times as long until the next warning, and so on


class Endpoint(NamedTuple):
  """Where a service listens.

  Attributes:
    host: a number or a name that clients can reach, e.g. '127.0.0.1'.
    port: TCP port.
    key: file of the run's key (`variables.keys`) that both sides show; None for
      a service that talks in plain text, on loopback only.
    incarnation: how often the service was started before, in this run. A client
      that finds a higher one than it knows talks to a new process.
  """

  host: str
  port: int
  key: pathlib.Path | None = None
  incarnation: int = 0

  @property
  def address(self) -> str:
    """Returns host:port, as gRPC and Reverb take it."""
    host = f'[{self.host}]' if ':' in self.host else self.host
    return f'{host}:{self.port}'

  @property
  def allowed(self) -> bool:
    """Whether this user may read the key, if there is one."""
    return self.key is None or os.access(self.key, os.R_OK)

  @property
  def loopback(self) -> bool:
    """Whether only clients on the same host can reach the service."""
    return self.host in ('localhost', '127.0.0.1', '::1')


def write(folder: pathlib.Path, worker: str, endpoint: Endpoint) -> None:
  """Lets others find a service.

  Args:
    folder: of the run's endpoints, `run_directory.RunDirectory.endpoints`.
    worker: the name of the worker that listens, e.g. 'variables/0'.
    endpoint: where it listens.

  Raises:
    NotWrittenError: if the file cannot be written.
  """
  folder.mkdir(exist_ok=True)
  key = None if endpoint.key is None else str(endpoint.key)
  files.write_json(
    _path(folder, worker), endpoint._replace(key=None)._asdict() | {'key': key}
  )


def find(folder: pathlib.Path, worker: str) -> Endpoint | None:
  """Returns where a service listens, or listened last; None before the first."""
  return files.read_if_whole(
    _path(folder, worker), _parse, f'where {worker} listens is not known'
  )


def wait(
  folder: pathlib.Path,
  worker: str,
  stopped: Callable[[], bool] = lambda: False,
  timeout_s: float = math.inf,
  explain_after_s: float = _EXPLAIN_AFTER_S,
) -> Endpoint | None:
  """Returns where a service listens, once it does; None if the run stops first.

  Args:
    folder: of the run's endpoints.
    worker: the name of the service.
    stopped: whether the run is over.
    timeout_s: how long to wait.
    explain_after_s: how long to wait before a warning says for whom.

  Raises:
    TimeoutError: if the service did not come in time.
  """
  start = time.monotonic()
  while (endpoint := find(folder, worker)) is None and not stopped():
    waited_s = time.monotonic() - start
    if waited_s >= timeout_s:
      raise TimeoutError(
        f'{worker} has not said in {_path(folder, worker)} where it listens, in '
        f'{timeout_s:g} s. Is its process running? Its log says more.'
      )
    if waited_s >= explain_after_s:
      explain_after_s *= 4
      logging.getLogger(__name__).warning(
        'waiting for %s, which has not said in %s where it listens, for %.1f s.',
        worker,
        _path(folder, worker),
        waited_s,
      )
    time.sleep(_POLL_S)
  return endpoint


def _parse(value: dict[str, object]) -> Endpoint:
  key = value['key']
  return Endpoint(
    str(value['host']),
    int(str(value['port'])),
    None if key is None else pathlib.Path(str(key)),
    int(str(value['incarnation'])),
  )


def _path(folder: pathlib.Path, worker: str) -> pathlib.Path:
  return folder / f'{worker.replace("/", "-")}.json'
