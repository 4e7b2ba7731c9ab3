"""One directory per run: where everything of it lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import re
import time
from typing import Any, NamedTuple

_COUNTS_KEPT = 4  # more than there are checkpoints


@dataclasses.dataclass(frozen=True)
class Running:
  """Where a run that goes on can be found; the contents of `running.json`."""

  pid: int  # of the launcher
  host: str  # that it runs on
  since: float  # unix seconds
  address: str = ''  # of the variable server; '' if there is none, or not yet

  @property
  def here(self) -> bool:
    """Whether this is the host."""
    return self.host == platform.node()

  @property
  def gone(self) -> bool:
    """Whether the launcher is known not to run any more."""
    if not self.here:
      return False
    try:
      os.kill(self.pid, 0)
    except ProcessLookupError:
      return True
    except PermissionError:  # there is one, of another user
      pass
    return False


class Progress(NamedTuple):
  """How far a run had come when its variable server was last heard of."""

  counts: Mapping[str, int]
  seconds: float  # of the run's clock


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
  def replay(self) -> pathlib.Path:
    """What replay held."""
    return self.path / 'replay'

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

  @property
  def lock(self) -> pathlib.Path:
    """An empty file; see `runtime.directory_lock`."""
    return self.path / 'lock'

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Lets others find the run while it goes on; forgets how it ended before."""
    self.summary.unlink(missing_ok=True)
    self._progress.unlink(missing_ok=True)
    self.write_running()
    try:
      yield
    finally:
      self._running.unlink(missing_ok=True)
      self._progress.unlink(missing_ok=True)

  def write_running(self, address: str = '') -> None:
    """Says that this process runs the run, and where its server listens."""
    now = Running(os.getpid(), platform.node(), time.time(), address)
    write_json(self._running, dataclasses.asdict(now))

  def read_running(self) -> Running | None:
    """Returns where the run can be found; None if it does not go on.

    A launcher that was killed leaves the file: see `Running.gone`.
    """
    try:
      return Running(**read_json(self._running))
    except FileNotFoundError:
      return None

  def write_progress(self, progress: Progress) -> None:
    """Keeps how far the run has come, for a restarted variable server."""
    write_json(self._progress, progress._asdict())

  def read_progress(self) -> Progress | None:
    """Returns how far this run had come; None if it begins, or is resumed."""
    try:
      return Progress(**read_json(self._progress))
    except FileNotFoundError:
      return None

  def read_config(self) -> dict[str, Any]:
    """Returns config.json.

    Raises:
      ValueError: if there is none, so that the directory is no run's.
    """
    try:
      config: Any = read_json(self.config)
    except (FileNotFoundError, NotADirectoryError):
      below = runs_below(self.path)
      what = (
        f'one of the runs in it, like {below[0]}'
        if below
        else ("what 'distacme train' printed as 'run directory'")
      )
      raise ValueError(
        f'{self.path} is no run directory: it has no {self.config.name}. Give '
        f'{what}.'
      ) from None
    except json.JSONDecodeError as error:
      raise ValueError(
        f'{self.config} is not readable as JSON ({error}). Restore the file '
        'that the run wrote.'
      ) from error
    if not isinstance(config, dict) or not config.keys() >= {'run', 'agent'}:
      raise ValueError(
        f'{self.config} is not of a distacme run: it lacks run or agent. Give '
        "what 'distacme train' printed as 'run directory'."
      )
    return config

  def last_step(self) -> int | None:
    """Returns the learner step of the newest complete checkpoint, if any."""
    names = [path.name for path in self.checkpoints.glob('*')]
    return max((int(name) for name in names if name.isdigit()), default=None)

  def last_saved(self) -> str:
    """Says in a sentence where the newest checkpoint is."""
    step = self.last_step()
    if step is None:
      return 'There is no checkpoint yet.'
    return f'The last checkpoint is {self.checkpoints / str(step)}.'

  def write_counts(self, step: int, counts: Mapping[str, int]) -> None:
    """Keeps the run's counters that belong to the checkpoint of `step`."""
    kept = read_json(self._counts) if self._counts.exists() else {}
    newest = sorted(kept, key=int)[-_COUNTS_KEPT:]
    counts = {**counts, 'learner_steps': step}
    write_json(self._counts, {k: kept[k] for k in newest} | {str(step): counts})

  def read_counts(self, step: int | None) -> dict[str, int]:
    """Returns the counters of the checkpoint of `step`; {} if not known."""
    if not self._counts.exists():
      return {}
    counts: dict[str, int] = read_json(self._counts).get(str(step), {})
    return counts

  @property
  def _running(self) -> pathlib.Path:
    return self.path / 'running.json'

  @property
  def _progress(self) -> pathlib.Path:
    return self.path / 'progress.json'

  @property
  def _counts(self) -> pathlib.Path:
    return self.path / 'counts.json'

  def create(self) -> None:
    """Makes the directory; changes nothing of a run that is there.

    Raises:
      ValueError: if the path is taken by something else, or cannot be written to.
    """
    with self._refused_if_not_writable():
      if self.path.exists() and not self._may_be_a_run():
        raise ValueError(
          f'{self.path} exists and is no run directory. Choose another run_dir.'
        )
      self.path.mkdir(parents=True, exist_ok=True)
      self.lock.touch()
      if not os.access(self.path, os.W_OK):
        raise PermissionError(f'it is not writable for user {os.getuid()}')

  def _may_be_a_run(self) -> bool:
    """Whether it is a run's, or empty, or another process makes it just now."""
    return self.path.is_dir() and (
      all(path == self.lock for path in self.path.iterdir())
      or self.config.exists()
    )

  def begin(self, config: Mapping[str, Any]) -> None:
    """Keeps the configuration, and puts aside the logs of a run resumed.

    Raises:
      ValueError: if that cannot be written.
    """
    with self._refused_if_not_writable():
      write_json(self.config, config)
      if self.logs.exists() and any(self.logs.iterdir()):
        number = len(list(self.path.glob('logs.*'))) + 1
        self.logs.rename(self.path / f'logs.{number}')
      self.logs.mkdir(exist_ok=True)

  @contextlib.contextmanager
  def _refused_if_not_writable(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise ValueError(
        f'{self.path} cannot be written to ({error}). Choose another run_dir.'
      ) from error


def default_path(agent: str, env: str, what: str) -> pathlib.Path:
  """Returns a path that nothing else has, below ./runs.

  Args:
    agent: its name.
    env: the environment's name.
    what: of all that they do together, e.g. 'seed3'.
  """
  now = datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
  name = re.sub(r'[^\w-]+', '-', f'{agent}-{env}')
  base = pathlib.Path('runs') / f'{name}-{what}-{now}'
  path, number = base, 1
  while path.exists():
    number += 1
    path = base.with_name(f'{base.name}-{number}')
  return path


def runs_below(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the runs directly below `path`; none if it is a run itself."""
  if RunDirectory(path).config.exists():
    return []
  return sorted(
    (
      config.parent
      for config in path.glob(f'*/{RunDirectory(path).config.name}')
    ),
    key=lambda run: (len(run.name), run.name),  # seed2 before seed10
  )


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a file that is complete or absent."""
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(value, indent=2, default=str) + '\n')
  temporary.replace(path)


def read_json(path: pathlib.Path) -> Any:
  """Reads what `write_json` wrote."""
  return json.loads(path.read_text())
