"""One directory per run: where everything of it lies."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import datetime
import json
import pathlib
from typing import Any

_COUNTS_KEPT = 4  # more than there are checkpoints


@dataclasses.dataclass(frozen=True)
class RunDirectory:
  """The paths inside a run's directory, and its small files."""

  path: pathlib.Path

  @property
  def checkpoints(self) -> pathlib.Path:
    """Learner states."""
    return self.path / 'checkpoints'

  @property
  def best(self) -> pathlib.Path:
    """Params of the best evaluation."""
    return self.path / 'best'

  @property
  def logs(self) -> pathlib.Path:
    """What each worker printed."""
    return self.path / 'logs'

  @property
  def config(self) -> pathlib.Path:
    """The resolved configuration, as JSON."""
    return self.path / 'config.json'

  @property
  def summary(self) -> pathlib.Path:
    """How the run ended, as JSON."""
    return self.path / 'summary.json'

  def last_step(self) -> int | None:
    """Returns the learner step of the newest complete checkpoint, if any."""
    names = [path.name for path in self.checkpoints.glob('*')]
    return max((int(name) for name in names if name.isdigit()), default=None)

  def write_counts(self, step: int, counts: Mapping[str, int]) -> None:
    """Keeps the run's counters that belong to the checkpoint of `step`."""
    kept = read_json(self._counts) if self._counts.exists() else {}
    newest = sorted(kept, key=int)[-_COUNTS_KEPT:]
    counts = {**counts, 'learner_steps': step}
    write_json(self._counts, {k: kept[k] for k in newest} | {str(step): counts})

  def last_counts(self) -> dict[str, int]:
    """Returns the counters of the newest checkpoint; {} if there is none."""
    if self.last_step() is None or not self._counts.exists():
      return {}
    counts: dict[str, int] = read_json(self._counts).get(
      str(self.last_step()), {}
    )
    return counts

  @property
  def _counts(self) -> pathlib.Path:
    return self.path / 'counts.json'

  def create(self) -> None:
    """Makes the directory.

    Raises:
      ValueError: if the path is taken by something else.
    """
    if self.path.exists() and (
      not self.path.is_dir()
      or (any(self.path.iterdir()) and not self.config.exists())
    ):
      raise ValueError(
        f'{self.path} exists and is no run directory. Choose another run_dir.'
      )
    if self.logs.exists() and any(self.logs.iterdir()):  # of the run resumed
      number = len(list(self.path.glob('logs.*'))) + 1
      self.logs.rename(self.path / f'logs.{number}')
    self.logs.mkdir(parents=True, exist_ok=True)


def default_path(agent: str, env: str, seed: int) -> pathlib.Path:
  """Returns a path that no other run has, below ./runs."""
  now = datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
  name = f'{agent}-{env}'.replace('/', '-').replace(':', '-').replace('.', '-')
  base = pathlib.Path('runs') / f'{name}-seed{seed}-{now}'
  path, number = base, 1
  while path.exists():
    number += 1
    path = base.with_name(f'{base.name}-{number}')
  return path


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a file that is complete or absent."""
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(value, indent=2, default=str) + '\n')
  temporary.replace(path)


def read_json(path: pathlib.Path) -> Any:
  """Reads what `write_json` wrote."""
  return json.loads(path.read_text())
