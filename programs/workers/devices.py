"""Chooses each worker's accelerators, by the numbers that this host counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import os
import pathlib
import subprocess
import sys
from typing import Any

from distacme.programs import program

# The drivers of NVIDIA and of AMD both heed this variable.
_VISIBLE = 'CUDA_VISIBLE_DEVICES'


def visible(
  numbers: Sequence[int], environment: Mapping[str, str]
) -> dict[str, str]:
  """Returns the variables that show a process these accelerators only.

  Args:
    numbers: of the accelerators, among those that `environment` shows already.
    environment: the variables so far.

  Raises:
    ValueError: if a number is beyond the accelerators that `environment` shows.
  """
  given = environment.get(_VISIBLE)
  if given is None:
    return {_VISIBLE: ','.join(map(str, numbers))}
  names = [name for name in given.split(',') if name]
  if max(numbers) >= len(names):
    raise ValueError(
      f'accelerator {max(numbers)} is asked for, counted from 0, but '
      f'{_VISIBLE}={given!r} leaves {len(names)}.'
    )
  return {_VISIBLE: ','.join(names[number] for number in numbers)}


def for_learner(numbers: Sequence[int], own_process: bool) -> list[Any]:
  """Returns the JAX devices to learn on: the accelerators, or all devices.

  Args:
    numbers: of the accelerators; all devices if there are no numbers.
    own_process: whether the learner is the only worker in this process. The
      process then sees no other accelerators; JAX must not have computed
      anything before.

  Raises:
    ValueError: if JAX does not find the accelerators.
  """
  if numbers and own_process:
    os.environ.update(visible(numbers, os.environ))
    return _accelerators(program.LEARNER, range(len(numbers)))
  if numbers:
    return _accelerators(program.LEARNER, numbers)
  import jax

  return list(jax.local_devices())


def check_split(
  batch_size: int,
  numbers: Sequence[int],
  environment: Mapping[str, str] | None,
) -> None:
  """Checks that a batch can be split over the devices that `for_learner` returns.

  Args:
    batch_size: of each batch.
    numbers: of the learner's accelerators; all devices if there are no numbers.
    environment: the variables of the learner's process; None if the learner is a
      thread of this process.

  Raises:
    ValueError: if some devices would get fewer elements than others.
  """
  import jax

  from distacme.learning import placement

  if numbers:
    count = len(numbers)
  else:
    count = len(jax.local_devices())
    if environment is not None:
      # This process sees the CPU alone. To start another takes seconds, which are
      # spent only where the answer may be a refusal.
      likely = max(count, _num_accelerators(environment))
      count = _count_in(environment) if batch_size % likely else 1
  placement.check_split(batch_size, count)


def _num_accelerators(environment: Mapping[str, str]) -> int:
  """Returns how many accelerators a process with these variables may find."""
  shown = environment.get(_VISIBLE)
  if shown is not None:
    return len([name for name in shown.split(',') if name])
  return len(list(pathlib.Path('/dev').glob('nvidia[0-9]*')))


def _count_in(environment: Mapping[str, str]) -> int:
  """Returns the number of JAX's devices in a process with these variables.

  The number is 1 if JAX does not find out: the learner says why.
  """
  done = subprocess.run(
    [sys.executable, '-c', 'import jax; print(jax.local_device_count())'],
    env={**environment, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'},
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  last = done.stdout.strip().rpartition('\n')[2]
  return int(last) if last.isdigit() else 1


@contextlib.contextmanager
def for_acting(
  worker: str, number: int | None, own_process: bool
) -> Iterator[None]:
  """Makes `worker` compute on one accelerator, or on the CPU, within a context.

  Args:
    worker: the worker's name, for messages.
    number: of the accelerator; None is the CPU.
    own_process: as in `for_learner`. Threads see the same accelerators, and
      each thread computes on its own.

  Raises:
    ValueError: if JAX does not find the accelerator.
  """
  import jax

  if own_process:  # the launcher has left JAX the CPU alone in it
    use_one_core()
    if number is not None:
      os.environ.update(visible([number], os.environ))
      jax.config.update('jax_platforms', None)
      _accelerators(worker, [0])
    yield
    return
  if number is None:
    device = jax.local_devices(backend='cpu')[0]
  else:
    (device,) = _accelerators(worker, [number])
  with jax.default_device(device):
    yield


def use_one_core() -> None:
  """Keeps JAX to one thread, which makes series of small computations fast.

  Call this function before JAX computes anything. With the environment
  variables that a launcher sets for actors, a call of a small policy is three
  times as fast.
  """
  import jax

  jax.config.update('jax_cpu_enable_async_dispatch', False)


@contextlib.contextmanager
def on_the_cpu() -> Iterator[None]:
  """Makes JAX compute on the CPU and take no accelerator, within a context.

  A launcher needs the context since the learner is another process: at the
  first computation JAX takes nearly all memory of the accelerators that JAX
  finds. After the context JAX is as before, for a caller that computes on
  accelerators.
  """
  import jax
  from jax._src import xla_bridge  # no public function tells
  from jax.extend import backend

  if xla_bridge.backends_are_initialized():
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      yield
    return
  before = jax.config.jax_platforms  # type: ignore[attr-defined]  # made at run time
  jax.config.update('jax_platforms', 'cpu')
  try:
    yield
  finally:
    backend.clear_backends()
    jax.config.update('jax_platforms', before)


def _accelerators(worker: str, numbers: Sequence[int]) -> list[Any]:
  import jax

  found = [d for d in jax.local_devices() if d.platform != 'cpu']
  if max(numbers) >= len(found):
    raise ValueError(
      f'{worker} is given accelerators, of which it needs number '
      f'{max(numbers)}, but JAX finds {len(found)} ({jax.local_devices()}). '
      "'distacme doctor' says what is installed; without learner_devices and "
      'actor_devices a run takes what there is.'
    )
  return [found[number] for number in numbers]
