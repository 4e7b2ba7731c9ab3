"""The endpoints of a run's services, found by the name of the worker."""

from __future__ import annotations

from collections.abc import Callable
import functools
import logging
import math
import os
import pathlib
import time
from typing import NamedTuple

from distacme.run import files
from distacme.run import patience as patience_lib

_POLL_S = 0.05
_EXPLAIN_AFTER_S = 5.0  # four times as long until the next warning, and so on


class Endpoint(NamedTuple):
  """The address of a service, its secrets, and the number of its restarts.

  Attributes:
    host: an IP address or a name that clients can reach, e.g. '127.0.0.1'.
    port: TCP port.
    key: file of the run's key (`rpc.keys`) that both sides show; None for
      a service that talks in plain text, on loopback only.
    incarnation: number of earlier starts of the service in this run. A higher one
      than before tells a client that the service is a new process.
    token: file of the run's token (`rpc.token`) that every call carries; None for
      a service that every user of its host may call, as Reverb is.
  """

  host: str
  port: int
  key: pathlib.Path | None = None
  incarnation: int = 0
  token: pathlib.Path | None = None

  @property
  def address(self) -> str:
    """host:port, as gRPC and Reverb take it."""
    host = f'[{self.host}]' if ':' in self.host else self.host
    return f'{host}:{self.port}'

  @property
  def allowed(self) -> bool:
    """True if this user may read the key and the token, as far as there are any."""
    return all(
      path is None or os.access(path, os.R_OK)
      for path in (self.key, self.token)
    )

  @property
  def loopback(self) -> bool:
    """True if only clients on the same host can reach the service."""
    return self.host in ('localhost', '127.0.0.1', '::1')


def write(folder: pathlib.Path, worker: str, endpoint: Endpoint) -> None:
  """Writes a service's endpoint, for clients to find.

  The files of the key and the token lie in the run directory, and are written by
  name: a client whose user looks at somebody else's run must not be led to a secret
  of another run.

  Args:
    folder: of the run's endpoints, `run_directory.RunDirectory.endpoints`, which
      lies in the run directory.
    worker: name of the worker that listens, e.g. 'variables/0'.
    endpoint: of the service.

  Raises:
    NotWrittenError: if the file cannot be written.
  """
  folder.mkdir(exist_ok=True)
  names = {
    secret: path and path.name
    for secret, path in (('key', endpoint.key), ('token', endpoint.token))
  }
  files.write_json(_path(folder, worker), endpoint._asdict() | names)


def find(folder: pathlib.Path, worker: str) -> Endpoint | None:
  """Returns a service's newest endpoint; None before the first."""
  return files.read_if_whole(
    _path(folder, worker),
    functools.partial(_parse, folder.parent),
    f'where {worker} listens is not known',
  )


def every(folder: pathlib.Path) -> dict[str, Endpoint]:
  """Returns all endpoints of a run, by the worker's name."""
  found = {}
  for path in folder.glob('*.json'):
    worker = '/'.join(path.stem.rsplit('-', 1))
    if (endpoint := find(folder, worker)) is not None:
      found[worker] = endpoint
  return found


def wait(
  folder: pathlib.Path,
  worker: str,
  stopped: Callable[[], bool] = lambda: False,
  timeout_s: float = math.inf,
  explain_after_s: float = _EXPLAIN_AFTER_S,
) -> Endpoint | None:
  """Waits for a service's endpoint; returns None if the run stops first.

  Args:
    folder: of the run's endpoints.
    worker: name of the service.
    stopped: returns whether the run is over.
    timeout_s: seconds to wait.
    explain_after_s: seconds to wait before a warning names the service.

  Raises:
    TimeoutError: if there is no endpoint in time.
  """
  patience = patience_lib.Patience(explain_after_s)
  while (endpoint := find(folder, worker)) is None and not stopped():
    if patience.waited_s >= timeout_s:
      raise TimeoutError(
        f'{worker} has not said in {_path(folder, worker)} where it listens, in '
        f'{timeout_s:g} s. Is its process running? Its log says more.'
      )
    if patience.is_over():
      logging.getLogger(__name__).warning(
        'waiting for %s, which has not said in %s where it listens, for %.1f s.',
        worker,
        _path(folder, worker),
        patience.waited_s,
      )
    time.sleep(_POLL_S)
  return endpoint


def _parse(run_dir: pathlib.Path, value: dict[str, object]) -> Endpoint:
  # Endpoints of earlier versions have no token, and the path of their key.
  key, token = (
    None if file is None else run_dir / pathlib.Path(str(file)).name
    for file in (value['key'], value.get('token'))
  )
  return Endpoint(
    str(value['host']),
    int(str(value['port'])),
    key,
    int(str(value['incarnation'])),
    token,
  )


def _path(folder: pathlib.Path, worker: str) -> pathlib.Path:
  return folder / f'{worker.replace("/", "-")}.json'
