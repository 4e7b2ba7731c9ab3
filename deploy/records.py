"""Records of a run's jobs on a cluster: which there are, where each is, how each ended.

All lie in the run directory, below cluster/. An engine's own accounts are not leant
on: not every site keeps any, and Slurm's srun reports 0 for a step whose node was lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import pathlib
import re
import time
from typing import Any

from distacme import status
from distacme.run import files
from distacme.run import run_directory
from distacme.runtime import topology

_ENDS_KEPT = 20
# Kinds of workers without which a run cannot go on.
_NEEDED = ('variables', 'replay', 'learner')


@dataclasses.dataclass(frozen=True)
class Submission:
  """The jobs that a launcher has submitted; the contents of `submission.json`.

  Attributes:
    jobs: the engine's number of each worker's job.
    since: when they were submitted, in unix seconds.
  """

  jobs: Mapping[str, str]
  since: float


@dataclasses.dataclass(frozen=True)
class End:
  """An end of a job's process.

  Attributes:
    how: in words.
    host: that the process ran on.
    time: in unix seconds.
    requeued: whether the job asked to be started anew because its worker failed.
  """

  how: str
  host: str
  time: float
  requeued: bool = False


@dataclasses.dataclass(frozen=True)
class Place:
  """The place of a worker's job now, and its ends before.

  Attributes:
    worker: by name; the workers of one job have the same place.
    job: the engine's number of the job; '' for an engine without.
    host: that the job's process runs on, or ran on last.
    since: start of the process, in unix seconds.
    runs: whether the process runs, as far as it could tell: a lost host says nothing.
    ends: the last ends, newest last.
  """

  worker: str
  job: str
  host: str
  since: float
  runs: bool = True
  ends: tuple[End, ...] = ()

  @property
  def start(self) -> tuple[str, float]:
    """The host and time of the start, which tell two starts of a job apart."""
    return self.host, self.since

  def ended(self, how: str, requeued: bool = False) -> Place:
    """Returns the place after an end."""
    end = End(how, self.host, time.time(), requeued)
    ends = (*self.ends, end)[-_ENDS_KEPT:]
    return dataclasses.replace(self, runs=False, ends=ends)


def write_submission(
  directory: run_directory.RunDirectory, submission: Submission
) -> None:
  """Writes the run's jobs.

  Raises:
    NotWrittenError: if they cannot be written.
  """
  directory.cluster.mkdir(exist_ok=True)
  files.write_json(_submission(directory), dataclasses.asdict(submission))


def read_submission(
  directory: run_directory.RunDirectory,
) -> Submission | None:
  """Returns the run's jobs; None if none were submitted by a launcher."""
  return files.read_if_whole(
    _submission(directory),
    lambda value: Submission(**value),
    'the numbers of the jobs of the run are not known',
  )


def write_place(directory: run_directory.RunDirectory, place: Place) -> None:
  """Writes the place of a worker's job; warns if it cannot be written."""
  path = _place(directory, place.worker)
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_if_possible(path, dataclasses.asdict(place))


def read_place(
  directory: run_directory.RunDirectory, worker: str
) -> Place | None:
  """Returns the place of a worker's job; None if the job has not begun."""
  return _read(_place(directory, worker))


def every_place(directory: run_directory.RunDirectory) -> Iterator[Place]:
  """Yields the places of all jobs that have begun."""
  for path in sorted((directory.cluster / 'places').glob('*.json')):
    if (place := _read(path)) is not None:
      yield place


def job_of(directory: run_directory.RunDirectory, worker: str) -> str:
  """Returns the engine's number of a worker's job; '' if it is not known."""
  submission = read_submission(directory)
  if submission is not None and worker in submission.jobs:
    return submission.jobs[worker]
  place = read_place(directory, worker)
  return place.job if place else ''


def jobs(directory: run_directory.RunDirectory) -> set[str]:
  """Returns the numbers of all jobs of a run, of arrays as a whole."""
  submission = read_submission(directory)
  numbers = [
    *(submission.jobs.values() if submission else ()),
    *(place.job for place in every_place(directory)),
  ]
  return {whole(number) for number in numbers if number}


def whole(number: str) -> str:
  """Returns the number of an array, given that of an element: 12 for 12_3."""
  return number.partition('_')[0]


def read_summary(
  directory: run_directory.RunDirectory,
) -> status.Status | None:
  """Returns the last status of a run that has ended since its submission.

  The summary of an earlier start was deleted; a network file system may still show it.
  """
  submission = read_submission(directory)
  try:
    written = directory.summary.stat().st_mtime
  except OSError:
    return None
  if submission is not None and written < submission.since:
    return None
  return directory.read_summary()


def needed(program: topology.Program) -> list[str]:
  """Returns the names of the workers without which a run cannot go on."""
  return [spec.name for spec in program.owners() if spec.kind in _NEEDED]


def title_of(path: pathlib.PurePath) -> str:
  """Returns a run's name among the user's jobs: the last part of its directory.

  Of one of several seeds, which is called like those of other runs, with the part before.
  """
  if re.fullmatch(r'seed\d+', path.name):
    return f'{path.parent.name}-{path.name}'
  return path.name


def begin(
  directory: run_directory.RunDirectory, cluster: pathlib.Path | None
) -> None:
  """Keeps the run's own copy of cluster.toml; forgets an earlier start of the run."""
  directory.cluster.mkdir(exist_ok=True)
  text = cluster.read_text() if cluster else ''
  cluster_file(directory).write_text(text)
  _submission(directory).unlink(missing_ok=True)
  for path in (directory.cluster / 'places').glob('*.json'):
    path.unlink(missing_ok=True)


def _read(path: pathlib.Path) -> Place | None:
  return files.read_if_whole(path, _parse, 'where its job is is not known')


def _parse(value: dict[str, Any]) -> Place:
  ends = tuple(End(**end) for end in value['ends'])
  return Place(**{**value, 'ends': ends})


def _submission(directory: run_directory.RunDirectory) -> pathlib.Path:
  return directory.cluster / 'submission.json'


def _place(directory: run_directory.RunDirectory, worker: str) -> pathlib.Path:
  name = worker.replace('/', '-')
  return directory.cluster / 'places' / f'{name}.json'


def cluster_file(directory: run_directory.RunDirectory) -> pathlib.Path:
  """Returns the run's own copy of cluster.toml."""
  return directory.cluster / 'cluster.toml'
