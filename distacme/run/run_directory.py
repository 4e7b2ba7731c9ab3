"""One directory per run: where everything of it lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import datetime
import os
import pathlib
import platform
import re
import time
from typing import Any, NamedTuple, TypeVar

from distacme import status as status_lib
from distacme.run import files
from distacme.run import notices

_COUNTS_KEPT = 4  # and those of all checkpoints

_T = TypeVar('_T')


@dataclasses.dataclass(frozen=True)
class Running:
  """Who runs a run that goes on; the contents of `running.json`."""

  pid: int  # of the launcher
  host: str  # that it runs on
  since: float  # unix seconds

  @property
  def here(self) -> bool:
    """Returns whether this is the host."""
    return self.host == platform.node()

  @property
  def gone(self) -> bool:
    """Returns whether the launcher is known not to run any more."""
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
    """Returns the folder of the learner's states."""
    return self.path / 'checkpoints'

  @property
  def best(self) -> pathlib.Path:
    """Returns the folder of the params of the best evaluation."""
    return self.path / 'best'

  @property
  def replay(self) -> pathlib.Path:
    """Returns the folder of replay's checkpoints."""
    return self.path / 'replay'

  @property
  def logs(self) -> pathlib.Path:
    """Returns the folder of the workers' output."""
    return self.path / 'logs'

  @property
  def endpoints(self) -> pathlib.Path:
    """Returns the folder that says where services listen (`run.endpoints`)."""
    return self.path / 'endpoints'

  @property
  def program(self) -> pathlib.Path:
    """Returns the JSON file of the run's program (`runtime.topology`)."""
    return self.path / 'program.json'

  @property
  def pickles(self) -> pathlib.Path:
    """Returns the folder of what workers cannot import."""
    return self.path / 'pickles'

  @property
  def warnings(self) -> pathlib.Path:
    """Returns the file of the warnings of workers' processes (`run.notices`)."""
    return self.logs / 'warnings'

  @property
  def config(self) -> pathlib.Path:
    """Returns the JSON file of the resolved configuration."""
    return self.path / 'config.json'

  @property
  def summary(self) -> pathlib.Path:
    """Returns the JSON file that says how the run ended."""
    return self.path / 'summary.json'

  @property
  def lock(self) -> pathlib.Path:
    """Returns the empty file that a run locks (`run.lock`)."""
    return self.path / 'lock'

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Lets others find the run while it goes on; forgets how it ended before."""
    self.summary.unlink(missing_ok=True)
    self._progress.unlink(missing_ok=True)
    self._forget_endpoints()
    now = Running(os.getpid(), platform.node(), time.time())
    files.write_if_possible(self._running, dataclasses.asdict(now))
    try:
      yield
    finally:
      self._running.unlink(missing_ok=True)
      self._progress.unlink(missing_ok=True)
      self._forget_endpoints()

  def _forget_endpoints(self) -> None:
    for path in self.endpoints.glob('*'):
      path.unlink(missing_ok=True)

  def read_running(self) -> Running | None:
    """Returns who runs the run; None if it does not go on.

    A launcher that was killed leaves the file: see `Running.gone`.
    """
    return files.read_if_whole(
      self._running,
      lambda value: Running(**value),
      'who runs the run, if it goes on, is not known',
    )

  def write_progress(self, progress: Progress) -> None:
    """Keeps how far the run has come, for a restarted variable server."""
    files.write_json(self._progress, progress._asdict())

  def read_progress(self) -> Progress | None:
    """Returns how far this run had come; None if it begins, or is resumed."""
    return files.read_if_whole(
      self._progress,
      lambda value: Progress(dict(value['counts']), float(value['seconds'])),
      'counters and clock go on from where the run was last resumed',
    )

  def write_summary(self, status: status_lib.Status) -> None:
    """Keeps how the run ended; if that cannot be, a warning says so."""
    files.write_if_possible(self.summary, status.to_dict())

  def read_summary(self) -> status_lib.Status | None:
    """Returns how the run ended; None if that is not known."""
    return files.read_if_whole(
      self.summary,
      status_lib.Status.from_dict,
      'how the run ended is not known',
    )

  def read_config(self) -> dict[str, Any]:
    """Returns config.json.

    Raises:
      ValueError: if there is none, so that the directory is no run's.
    """
    try:
      config: Any = files.read_json(self.config)
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
    except ValueError as error:  # JSON's, or Unicode's
      raise ValueError(
        f'{self.config} is not readable as JSON ({error}). Restore the file '
        'that the run wrote, or give another run directory.'
      ) from error
    if not isinstance(config, dict) or not all(
      isinstance(config.get(part), dict) for part in ('run', 'agent')
    ):
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
    known = files.read_if_whole(
      self._counts, _counts, 'counters of earlier checkpoints are lost'
    )
    known = known or {}
    newest = sorted(known)[-_COUNTS_KEPT:]
    # Or a checkpoint's would go while later ones cannot be written.
    kept = {
      number: known[number]
      for number in known
      if number in newest or (self.checkpoints / str(number)).exists()
    }
    counts = {**counts, 'learner_steps': step}
    files.write_json(self._counts, {**kept, step: counts})

  def read_counts(self, step: int) -> dict[str, int]:
    """Returns the counters of the checkpoint of `step`.

    If there are none, a warning says what is taken instead: those nearest
    before, or none.

    Raises:
      ValueError: if their file is damaged.
    """
    try:
      known = _counts(files.read_json(self._counts))
    except FileNotFoundError:
      known = {}
    except files.NOT_WHOLE as error:
      raise ValueError(
        f'{self._counts} is damaged ({error}), and env_steps and the other '
        'counters of the run are in it. Restore the file, or delete it to '
        'count from 0.'
      ) from error
    nearest = max((number for number in known if number <= step), default=None)
    if nearest != step:
      notices.warn_once(
        f'{self._counts} has no counters of the checkpoint {step}: '
        + (
          'env_steps and the others start at 0.'
          if nearest is None
          else f'those of {nearest} are used, which are lower.'
        )
      )
    counts = {} if nearest is None else known[nearest]
    return {**counts, 'learner_steps': step}

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
    check_path(self.path)
    with self.refused_if_not_writable():
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
    with self.refused_if_not_writable():
      files.write_json(self.config, config)
      if self.logs.exists() and any(self.logs.iterdir()):
        numbers = [path.suffix[1:] for path in self.path.glob('logs.*')]
        last = max((int(n) for n in numbers if n.isdigit()), default=0)
        self.logs.rename(self.path / f'logs.{last + 1}')
      self.logs.mkdir(exist_ok=True)

  @contextlib.contextmanager
  def refused_if_not_writable(self) -> Iterator[None]:
    """Makes a ValueError of what a directory that cannot be written to raises."""
    try:
      yield
    except files.NotWrittenError as error:
      raise ValueError(str(error)) from error
    except OSError as error:
      raise ValueError(
        f'{self.path} cannot be written to ({error}). Choose another run_dir.'
      ) from error


def check_path(path: pathlib.Path, only_read: bool = False) -> None:
  """Refuses a path at which nothing can be saved so that it can be read again.

  Orbax looks for what it has written by a pattern that begins with the path, and
  TensorStore takes a backslash for a slash.

  Raises:
    ValueError: naming the characters.
  """
  text = str(path)
  found = sorted(set(text) & set('\\' if only_read else '*?[\\'))
  if any('\ud800' <= letter <= '\udfff' for letter in text):
    found.append('bytes that are not UTF-8')
  if found:
    raise ValueError(
      f'checkpoints in {text!r} could not be read: the path has '
      f'{" and ".join(found)}, which the library that saves them takes for '
      'something else. Choose another run_dir, or rename the folder.'
    )


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


def _counts(value: Any) -> dict[int, dict[str, int]]:
  """Returns counters by checkpoint from JSON, whose keys are texts."""
  return {int(step): dict(counts) for step, counts in value.items()}
