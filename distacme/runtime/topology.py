"""A program as data: its workers and the services that each worker needs.

This module starts no worker. Launchers of any kind read the program, and so does each
worker, from a file in the run directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class WorkerSpec:
  """A worker.

  Attributes:
    name: kind and number, e.g. 'actor/3'.
    listens: whether the worker is a service, which writes its endpoint.
    needs: names of the services that the worker uses.
    lives_in: name of the worker in the process of which this worker is a thread; ''
      for a process of its own.
    env: environment variables of the worker's process.
    resources: for launchers that place processes: numbers of 'cpus' and
      'accelerators'. The launcher decides about resources that are not named.
  """

  name: str
  listens: bool = False
  needs: tuple[str, ...] = ()
  lives_in: str = ''
  env: Mapping[str, str] = dataclasses.field(default_factory=dict)
  resources: Mapping[str, int] = dataclasses.field(default_factory=dict)

  @property
  def kind(self) -> str:
    """The name without the number: 'actor' for 'actor/3'."""
    return self.name.partition('/')[0]

  @property
  def index(self) -> int:
    """The number in the name."""
    return int(self.name.partition('/')[2])


@dataclasses.dataclass(frozen=True)
class Program:
  """The workers of a run, and their import path.

  Attributes:
    workers: in the order in which they start.
    import_path: folders in which workers look for modules, as `sys.path`.
  """

  workers: tuple[WorkerSpec, ...]
  import_path: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    names = [worker.name for worker in self.workers]
    for name in names:
      kind, _, number = name.partition('/')
      if not kind.isidentifier() or not number.isdigit():
        raise ValueError(
          f"a worker's name is kind and number, like 'actor/0', got {name!r}."
        )
      if names.count(name) > 1:
        raise ValueError(
          f'two workers are called {name}. Number those of one kind.'
        )
    for worker in self.workers:
      self._check_references(worker)
    self._check_order()

  def _check_references(self, worker: WorkerSpec) -> None:
    """Refuses names of missing workers in `needs` and `lives_in`."""
    services = [other.name for other in self.workers if other.listens]
    for name in worker.needs:
      if name not in services:
        raise ValueError(
          f'{worker.name} needs {name!r}, which is no service of the program. '
          f'Services: {", ".join(services) or "none"}.'
        )
    owners = [other.name for other in self.owners()]
    if worker.lives_in and worker.lives_in not in owners:
      raise ValueError(
        f'{worker.name} lives in {worker.lives_in!r}, which has no process of '
        f'its own. Workers that have: {", ".join(owners) or "none"}.'
      )

  def _check_order(self) -> None:
    """Refuses workers that wait for each other in a circle."""
    settled: set[str] = set()
    left = {worker.name: worker for worker in self.workers}
    while left:
      ready = [name for name in left if settled.issuperset(left[name].needs)]
      if not ready:
        needs = [f'{name} needs {", ".join(left[name].needs)}' for name in left]
        raise ValueError(
          f'no worker could start first: {"; ".join(needs)}. Let one of them '
          'need nobody of these.'
        )
      for name in ready:
        settled.add(left.pop(name).name)

  def __getitem__(self, name: str) -> WorkerSpec:
    """Returns the worker of that name.

    Raises:
      ValueError: if there is no such worker.
    """
    for worker in self.workers:
      if worker.name == name:
        return worker
    raise ValueError(
      f'no worker of the program is called {name!r}. Known: '
      f'{", ".join(worker.name for worker in self.workers)}.'
    )

  def __contains__(self, name: str) -> bool:
    """Returns whether there is a worker of that name."""
    return any(worker.name == name for worker in self.workers)

  def owners(self) -> Iterator[WorkerSpec]:
    """Yields the workers that have a process of their own."""
    return (worker for worker in self.workers if not worker.lives_in)

  def lodgers(self, name: str) -> list[str]:
    """Returns the names of the workers that live in the process of `name`."""
    return [worker.name for worker in self.workers if worker.lives_in == name]

  def clients(self, service: str) -> list[str]:
    """Returns the names of the workers that need a service."""
    return [worker.name for worker in self.workers if service in worker.needs]

  def plus(self, *workers: WorkerSpec) -> Program:
    """Returns the program with more workers, which replace those of their names."""
    others = self.without(*(worker.name for worker in workers))
    return dataclasses.replace(self, workers=(*others.workers, *workers))

  def without(self, *names: str) -> Program:
    """Returns the program without some workers."""
    kept = [worker for worker in self.workers if worker.name not in names]
    return dataclasses.replace(self, workers=tuple(kept))

  def as_dict(self) -> dict[str, Any]:
    """Returns the program as plain data for JSON."""
    return dataclasses.asdict(self)


def from_dict(data: Mapping[str, Any]) -> Program:
  """Undoes `Program.as_dict`.

  Raises:
    ValueError, TypeError, KeyError: if `data` is no program.
  """
  return Program(
    tuple(
      WorkerSpec(**{**worker, 'needs': tuple(worker['needs'])})
      for worker in data['workers']
    ),
    tuple(data['import_path']),
  )
