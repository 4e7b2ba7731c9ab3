"""One directory per run: the paths in it, and its small files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import datetime
import os
import pathlib
import platform
import re
import shutil
import time
from typing import Any, NamedTuple

from distacme import status as status_lib
from distacme.run import files
from distacme.run import notices

_COUNTS_KEPT = 4  # beside those of all checkpoints


@dataclasses.dataclass(frozen=True)
class Running:
  """The launcher of a run that goes on; the contents of `running.json`."""

  pid: int  # of the launcher
  host: str  # that it runs on
  since: float  # unix seconds
  # The mode of a run on a cluster, which goes on without its launcher.
  cluster: str = ''

  @property
  def here(self) -> bool:
    """True if the launcher is on this host."""
    return self.host == platform.node() and not self.cluster

  @property
  def gone(self) -> bool:
    """True if the launcher is known to have ended."""
    if not self.here:
      return False
    try:
      os.kill(self.pid, 0)
    except ProcessLookupError:
      return True
    except PermissionError:  # a process of another user
      pass
    return False


class Progress(NamedTuple):
  """A run's progress at the last answer of its variable server."""

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
    """Saved tables of replay."""
    return self.path / 'replay'

  def replay_shard(self, index: int, count: int) -> pathlib.Path:
    """Returns where one of several replay servers saves its tables."""
    if count == 1:
      return self.replay
    return self.replay / f'shard_{index}_of_{count}'

  @property
  def demonstrations(self) -> pathlib.Path:
    """Replay as the run's demonstrations fill it, before the first step."""
    return self.path / 'demonstrations'

  @property
  def logs(self) -> pathlib.Path:
    """Output of each worker."""
    return self.path / 'logs'

  @property
  def endpoints(self) -> pathlib.Path:
    """Endpoints of the run's services; see `run.endpoints`."""
    return self.path / 'endpoints'

  @property
  def program(self) -> pathlib.Path:
    """Returns the JSON file of the run's program (`runtime.topology`)."""
    return self.path / 'program.json'

  @property
  def pickles(self) -> pathlib.Path:
    """Functions of the user that workers cannot import, as pickles."""
    return self.path / 'pickles'

  @property
  def warnings(self) -> pathlib.Path:
    """Warnings of workers' processes by `warn_once`."""
    return self.logs / 'warnings'

  @property
  def config(self) -> pathlib.Path:
    """Returns the JSON file of the resolved configuration."""
    return self.path / 'config.json'

  @property
  def summary(self) -> pathlib.Path:
    """The run's last status, as JSON."""
    return self.path / 'summary.json'

  @property
  def cluster(self) -> pathlib.Path:
    """Jobs of a run on a cluster; see `distacme.deploy`."""
    return self.path / 'cluster'

  @property
  def stop_request(self) -> pathlib.Path:
    """An empty file; while it is there, the run is asked to end."""
    return self.path / 'stop'

  @property
  def lock(self) -> pathlib.Path:
    """An empty file; see `run.lock`."""
    return self.path / 'lock'

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Keeps `running.json` while the run goes on; deletes an earlier summary."""
    self.start_running()
    try:
      yield
    finally:
      self.end_running()

  def start_running(self, cluster: str = '') -> None:
    """Writes `running.json`; deletes what an earlier start of the run has left.

    Args:
      cluster: mode of a run that goes on without this process.
    """
    self.summary.unlink(missing_ok=True)
    self.end_running()
    self.write_running(cluster)

  def write_running(self, cluster: str = '') -> None:
    """Writes `running.json`; see `start_running`."""
    now = Running(os.getpid(), platform.node(), time.time(), cluster)
    files.write_if_possible(self._running, dataclasses.asdict(now))

  def end_running(self) -> None:
    """Deletes what stands in the directory only while the run goes on."""
    self._running.unlink(missing_ok=True)
    self.stop_request.unlink(missing_ok=True)
    self._progress.unlink(missing_ok=True)
    self._forget_endpoints()

  def _forget_endpoints(self) -> None:
    for path in self.endpoints.glob('*'):
      path.unlink(missing_ok=True)

  def read_running(self) -> Running | None:
    """Returns the run's launcher; None if the run does not go on.

    A killed launcher leaves the file: see `Running.gone`.
    """
    return files.read_if_whole(
      self._running,
      lambda value: Running(**value),
      'who runs the run, if it goes on, is not known',
    )

  def write_progress(self, progress: Progress) -> None:
    """Writes the run's progress, for a restarted variable server."""
    files.write_json(self._progress, progress._asdict())

  def read_progress(self) -> Progress | None:
    """Returns the run's progress; None if the run begins, or is resumed."""
    return files.read_if_whole(
      self._progress,
      lambda value: Progress(dict(value['counts']), float(value['seconds'])),
      'counters and clock go on from where the run was last resumed',
    )

  def write_summary(self, status: status_lib.Status) -> None:
    """Writes the run's last status; warns if it cannot be written."""
    files.write_if_possible(self.summary, status.to_dict())

  def read_summary(self) -> status_lib.Status | None:
    """Returns the run's last status; None if it is not known."""
    return files.read_if_whole(
      self.summary,
      status_lib.Status.from_dict,
      'how the run ended is not known',
    )

  def read_config(self) -> dict[str, Any]:
    """Returns config.json.

    Raises:
      ValueError: if the file is missing, as in a directory that is no run's, is
        damaged, or cannot be read.
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
    except OSError as error:  # it is another user's, or no file
      raise ValueError(
        f'{self.config} cannot be read ({error.strerror}). Let its owner allow '
        'it, or give another run directory.'
      ) from error
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
    """Returns a sentence with the place of the newest checkpoint."""
    step = self.last_step()
    if step is None:
      return 'There is no checkpoint yet.'
    return f'The last checkpoint is {self.checkpoints / str(step)}.'

  def write_counts(self, step: int, counts: Mapping[str, int]) -> None:
    """Writes the run's counters at the checkpoint of `step`."""
    known = files.read_if_whole(
      self._counts, _counts, 'counters of earlier checkpoints are lost'
    )
    known = known or {}
    newest = sorted(known)[-_COUNTS_KEPT:]
    # Else a checkpoint's counters would go while no later one can be written.
    kept = {
      number: known[number]
      for number in known
      if number in newest or (self.checkpoints / str(number)).exists()
    }
    counts = {**counts, 'learner_steps': step}
    files.write_json(self._counts, {**kept, step: counts})

  def read_counts(self, step: int) -> dict[str, int]:
    """Returns the counters of the checkpoint of `step`.

    If these are missing, a warning names the substitute: the nearest earlier
    counters, or none.

    Raises:
      ValueError: if the file of counters is damaged.
    """
    try:
      known = _counts(files.read_json(self._counts))
    except FileNotFoundError:
      known = {}
    except (OSError, *files.NOT_WHOLE) as error:
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
    """Makes the directory; leaves an existing run unchanged.

    Raises:
      ValueError: if the path is something else, or cannot be written to.
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
    """Returns whether the directory is a run's, empty, or in the making."""
    return self.path.is_dir() and (
      all(path == self.lock for path in self.path.iterdir())
      or self.config.exists()
    )

  def begin(self, config: Mapping[str, Any]) -> None:
    """Writes the configuration, and puts the logs of a resumed run aside.

    Raises:
      ValueError: if the directory cannot be written to.
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
    """Turns errors of a directory that cannot be written to into a ValueError."""
    try:
      yield
    except files.NotWrittenError as error:
      raise ValueError(str(error)) from error
    except OSError as error:
      raise ValueError(
        f'{self.path} cannot be written to ({error}). Choose another run_dir.'
      ) from error


def check_path(path: pathlib.Path, only_read: bool = False) -> None:
  """Refuses a path from which Orbax could not read its own checkpoints.

  Orbax finds checkpoints by a glob pattern that begins with the path, and
  TensorStore takes a backslash for a slash.

  Raises:
    ValueError: if the path has such characters; the message names them.
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


def make_new(agent: str, env: str, what: str) -> pathlib.Path:
  """Makes a directory below ./runs that no other command has; returns its path.

  Args:
    agent: the agent's name.
    env: the environment's name.
    what: tells runs of this agent and environment apart, e.g. 'seed3'.

  Raises:
    ValueError: if none can be made here.
  """
  now = datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
  name = re.sub(r'[^\w-]+', '-', f'{agent}-{env}')
  first = pathlib.Path('runs').resolve() / f'{name}-{what}-{now}'
  check_path(first)
  path, number = first, 1
  with RunDirectory(first).refused_if_not_writable():
    while True:
      path.parent.mkdir(exist_ok=True)
      try:
        path.mkdir()
        return path
      except FileExistsError:
        number += 1
        path = first.with_name(f'{first.name}-{number}')
      except FileNotFoundError:
        pass  # another command that was refused took ./runs away


def take_back(path: pathlib.Path) -> None:
  """Removes what `make_new` made, for a command that is refused after all."""
  shutil.rmtree(path, ignore_errors=True)
  with contextlib.suppress(OSError):  # it holds other runs
    path.parent.rmdir()


def runs_below(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the runs directly below `path`; none if `path` is a run itself."""
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
  """Returns counters by checkpoint, from JSON with texts as keys."""
  return {int(step): dict(counts) for step, counts in value.items()}
