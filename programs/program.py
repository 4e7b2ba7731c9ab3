"""Describes the workers of a run, as data in program.json."""

from __future__ import annotations

from collections.abc import Mapping
import os
import sys
from typing import TYPE_CHECKING

from distacme.programs import modes
from distacme.run import cores
from distacme.run import files
from distacme.run import run_directory
from distacme.run import run_state
from distacme.runtime import topology

if TYPE_CHECKING:
  from distacme.programs import run_config

VARIABLES = 'variables/0'
LEARNER = 'learner/0'
EVALUATOR = 'evaluator/0'
_ACTORS = 'actor/'
_REPLAY = 'replay/'
REPLAY = f'{_REPLAY}0'  # where there is replay at all, as a worker
_RELAYS = 'relay/'
# Relays that subscribe to the variable server; those beyond subscribe to a relay.
_FAN_OUT = 100


def actor_name(index: int) -> str:
  """Returns the name of the actor of a number."""
  return f'{_ACTORS}{index}'


def is_actor(name: str) -> bool:
  """Returns whether a worker is an actor."""
  return name.startswith(_ACTORS)


def replay_servers(worker: topology.WorkerSpec) -> list[str]:
  """Returns the names of the replay workers that a worker needs, in their order."""
  return [name for name in worker.needs if name.startswith(_REPLAY)]


def relay_of(spec: topology.WorkerSpec) -> str | None:
  """Returns the relay from which a worker gets params; None for the server."""
  return next((name for name in spec.needs if name.startswith(_RELAYS)), None)


def may_join(program: topology.Program, name: str) -> bool:
  """Returns whether a worker is in a program, or an actor that can be added to it."""
  if name in program:
    return True
  number = name.removeprefix(_ACTORS)
  return (
    is_actor(name)
    and REPLAY in program
    and number.isdecimal()
    and str(int(number)) == number
    and int(number) < run_state.MAX_ACTORS
  )


_ALL = {
  'TF_CPP_MIN_LOG_LEVEL': '3',
  'GRPC_VERBOSITY': 'ERROR',
  'PYTHONUNBUFFERED': '1',  # a user's prints are in the log at once
}


def _acting() -> Mapping[str, str]:
  """Returns the environment variables of actors and evaluators."""
  return {
    **_ALL,
    'MALLOC_ARENA_MAX': '2',  # takes 6 MB less
    'JAX_PLATFORMS': 'cpu',  # Actors leave accelerators to the learner.
    **cores.acting(),
  }


def make_program(
  run: run_config.RunConfig, acts: bool = True
) -> topology.Program:
  """Returns the program of a run; nothing starts and no port is bound.

  Args:
    run: the settings.
    acts: whether there are actors, and replay between them and the learner. An
      agent that learns from demonstrations alone has neither.
  """
  replay = [
    topology.WorkerSpec(
      f'{_REPLAY}{index}',
      listens=True,
      needs=(VARIABLES,),
      lives_in=LEARNER if run.replay_in_learner else '',
      env=_ALL,
    )
    for index in range(run.num_replay_servers if acts else 0)
  ]
  num_actors = run.num_actors if acts else 0
  remote = modes.find(run.mode).remote
  return topology.Program(
    (
      topology.WorkerSpec(
        VARIABLES,
        listens=True,
        env={**_ALL, 'MALLOC_ARENA_MAX': '2'},  # takes 20 MB less
      ),
      *replay,
      *(_relay(index) for index in range(run.relays if acts else 0)),
      topology.WorkerSpec(
        LEARNER,
        needs=(VARIABLES, *(server.name for server in replay)),
        # A host of a cluster may have other cores, and shares them with nobody.
        env=_ALL
        if remote
        else {
          **_ALL,
          **cores.learning(num_actors + run.num_replay_servers - 1),
        },
        resources=(
          {'accelerators': len(run.learner_devices)}
          if run.learner_devices
          else {}
        ),
      ),
      *(actor(run, index) for index in range(num_actors)),
      topology.WorkerSpec(
        EVALUATOR,
        needs=(VARIABLES,),
        env=_acting(),
        resources={'cpus': 1, 'accelerators': 0},
      ),
    ),
    _import_path(),
  )


def _relay(index: int) -> topology.WorkerSpec:
  """Returns the relay of a number, in a tree whose root is the variable server."""
  above = index // _FAN_OUT - 1
  return topology.WorkerSpec(
    f'{_RELAYS}{index}',
    listens=True,
    needs=(VARIABLES, *((f'{_RELAYS}{above}',) if above >= 0 else ())),
    env={**_ALL, 'MALLOC_ARENA_MAX': '2'},
    resources={'cpus': 1, 'accelerators': 0},
  )


def actor(run: run_config.RunConfig, index: int) -> topology.WorkerSpec:
  """Returns the actor of a number, started with the run or added later."""
  relays = (f'{_RELAYS}{index % run.relays}',) if run.relays else ()
  return topology.WorkerSpec(
    actor_name(index),
    needs=(
      VARIABLES,
      f'{_REPLAY}{index % run.num_replay_servers}',
      *relays,
    ),
    env=_acting(),
    resources={
      'cpus': 1,
      'accelerators': int(run.actor_device(index) is not None),
    },
  )


def _import_path() -> tuple[str, ...]:
  """Returns the folders this process imports from, a script's own included."""
  return tuple(
    # '' and '.' are existing folders; some loaders leave names of no folder.
    os.path.abspath(entry) if not entry or os.path.exists(entry) else entry
    for entry in sys.path
  )


def write(
  program: topology.Program, directory: run_directory.RunDirectory
) -> None:
  """Writes the program for its workers.

  Raises:
    NotWrittenError: if the program cannot be written.
  """
  files.write_json(directory.program, program.as_dict())


def read(directory: run_directory.RunDirectory) -> topology.Program:
  """Returns the program that a run's launcher has written.

  Raises:
    ValueError: if no program has been written.
  """
  try:
    return topology.from_dict(files.read_json(directory.program))
  except (FileNotFoundError, *files.NOT_WHOLE) as error:
    raise ValueError(
      f'{directory.program} is missing or damaged ({error}). It is written when '
      'a run starts in a mode with processes; start the run anew.'
    ) from error
