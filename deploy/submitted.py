"""Makes a run directory of what a submission brings, on a volume of the cluster.

The machine that submits a run has a run directory of its own, and does not see the one
on the volume, which alone has checkpoints. So a run is resumed here, and not there.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import os
import pathlib
import time
from typing import Any, NamedTuple

from distacme import replay_spec
from distacme.deploy import records
from distacme.programs import program as program_lib
from distacme.programs import recorded_run
from distacme.programs import run_config
from distacme.rpc import keys
from distacme.rpc import token
from distacme.run import files
from distacme.run import lock
from distacme.run import run_directory

# The files of a submission, in a folder that shows them to a pod.
ID = 'id'  # another one for each submission
CONFIG = 'config.json'
CLUSTER = 'cluster.toml'
SECRETS = (keys.FILE, token.FILE)


class Submitted(NamedTuple):
  """The folders with what a submission brings."""

  files: pathlib.Path
  secrets: pathlib.Path | None = None  # only where the run directory is made

  @property
  def id(self) -> str:
    """The submission's name, which no other one has."""
    return (self.files / ID).read_text().strip()


@dataclasses.dataclass(frozen=True)
class Brought:
  """A submission that a run directory is of, or that was refused for it."""

  id: str
  refusal: str = ''
  since: float = 0.0  # as the submission that `records` knows then


def is_seen(brought: Brought, directory: run_directory.RunDirectory) -> bool:
  """Returns whether this host sees the files of a submission, and none of before.

  A network file system may show one file of it later than another.
  """
  known = records.read_submission(directory)
  return bool(brought.refusal) or (
    known is not None and known.since == brought.since
  )


def read(directory: run_directory.RunDirectory) -> Brought | None:
  """Returns the submission that a run directory is of; None if it is of none."""
  return files.read_if_whole(
    _path(directory),
    lambda value: Brought(**value),
    'whether it is of this submission is not known',
  )


def bring(submitted: Submitted, directory: run_directory.RunDirectory) -> None:
  """Makes the run directory one of this submission, if it is not one already.

  A run that lies there goes on from its checkpoint. A submission with other settings
  of learning is refused, and what was there stays.

  Raises:
    ValueError: if the directory cannot be written to, or another run is in it.
  """
  before = read(directory)
  if before is None or before.id != submitted.id:
    directory.create()
    with lock.take(directory):
      try:
        brought = Brought(submitted.id, since=_begin(submitted, directory))
      except _RefusedError as error:
        brought = Brought(submitted.id, refusal=str(error))
      with directory.refused_if_not_writable():
        directory.cluster.mkdir(exist_ok=True)
        files.write_json(_path(directory), dataclasses.asdict(brought))
  for name in SECRETS:  # a volume may be mounted with more rights for its group
    if (directory.path / name).exists():
      (directory.path / name).chmod(0o600)


class _RefusedError(Exception):
  """A submission does not fit the run that is there."""


def _begin(
  submitted: Submitted, directory: run_directory.RunDirectory
) -> float:
  """Writes a run's files; after a kill the same submission does so once more.

  Returns:
    The time as of which the run is of this submission, in unix seconds.
  """
  config = files.read_json(submitted.files / CONFIG)
  step = directory.last_step()
  if step is not None:
    _check_same(directory, config)
    config['resumed_from'] = directory.read_counts(step)
  with directory.refused_if_not_writable():
    directory.start_running(config['run']['mode'])
    for name in SECRETS:
      _copy_secret(submitted, directory, name)
    directory.begin(config)
    spec = replay_spec.from_dict(config['replay'])
    run = recorded_run.run_config(config, directory)
    program = program_lib.make_program(run, spec.needs_actors)
    program_lib.write(program, directory)
    records.begin(directory, submitted.files / CLUSTER)
    since = time.time()
    # Without numbers of jobs: a pod's is in its place.
    records.write_submission(directory, records.Submission({}, since))
    return since


def _check_same(
  directory: run_directory.RunDirectory, now: Mapping[str, Any]
) -> None:
  """Refuses other settings than a run must keep, as `programs.checks` does.

  Raises:
    _RefusedError: if some differ; the message names them.
  """
  before = directory.read_config()
  known = {
    'agent': before['agent'],
    'run': recorded_run.defaults(run_config.RunConfig) | before['run'],
  }
  # A setting of the agent that did not exist then has a default that only the agent's
  # module knows, and that takes long to import.
  pairs = [('agent', name) for name in now['agent'] if name in known['agent']]
  pairs += [('run', name) for name in run_config.fields_with(resume='fixed')]
  changed = [
    f'{name} was {known[part].get(name)!r} and is {now[part][name]!r}'
    for part, name in pairs
    if known[part].get(name) != now[part][name]
  ]
  if changed:
    raise _RefusedError(
      f'{directory.path} on the volume holds a run to be resumed, but '
      f'{"; ".join(changed)}. Give the same settings, or another run_dir.'
    )


def _copy_secret(
  submitted: Submitted, directory: run_directory.RunDirectory, name: str
) -> None:
  """Copies a secret into the run directory, where only this user may read it.

  A Secret is mounted as links to files that the group may read, and both are refused
  where secrets are used.
  """
  if submitted.secrets is None:
    raise ValueError(
      f'{name} of the run is not there: only the pod of {program_lib.VARIABLES}, '
      'which gets --secrets, makes the run directory.'
    )
  path = directory.path / name
  temporary = path.with_suffix('.tmp')
  temporary.unlink(missing_ok=True)
  # Other users must not be able to read the file, even while it is written.
  flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
  with os.fdopen(os.open(temporary, flags, 0o600), 'wb') as file:
    file.write((submitted.secrets / name).read_bytes())
    file.flush()
    os.fsync(file.fileno())
  temporary.replace(path)


def _path(directory: run_directory.RunDirectory) -> pathlib.Path:
  return directory.cluster / 'submitted.json'
