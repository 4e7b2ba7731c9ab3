"""Where the services of a run listen, found by the name of the worker."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from distacme.run import files


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


def of_address(address: str) -> Endpoint:
  """Returns the endpoint at host:port, without a key."""
  host, _, port = address.rpartition(':')
  return Endpoint(host.strip('[]'), int(port))


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
