"""Saves, restores and reseeds generators of random numbers: each a `states.Source`."""

from __future__ import annotations

import ctypes
import hashlib
import random
import sys
from typing import Any

import numpy as np

_KEY_BYTES, _MERSENNE_BYTES = 4 * 624, 4 * 625  # its words; words and position


class NumpyGenerator:
  """A numpy Generator, or the BitGenerator of one."""

  def __init__(self, generator: Any):
    self._bits = getattr(generator, 'bit_generator', generator)

  def save(self) -> Any:
    """Returns the state of the bits."""
    return self._bits.state

  def restore(self, saved: Any, seed: int | None) -> None:
    """Returns to a saved state, or starts anew with a seed."""
    self._bits.state = saved if seed is None else _seeded(self._bits, seed)


class NumpyRandomState:
  """A numpy RandomState.

  Its state takes 50 us to read and 70 us to set, a seed 2 us. Most environments
  draw seldom, so an unchanged state is not read again. It is unchanged if its
  memory is, and no normal number waits to be drawn, which lies elsewhere.
  """

  def __init__(self, generator: np.random.RandomState):
    self._generator = generator
    self._address = _mersenne_address(generator)
    self._memory: bytes | None = None  # in the state `_known`, if that is known
    self._known: Any = None

  def save(self) -> Any:
    """Returns the state, or the seed that made it."""
    if self._may_have_changed():
      self._remember(self._generator.get_state(legacy=False))
    return self._known

  def restore(self, saved: Any, seed: int | None) -> None:
    """Returns to a saved state, or starts anew with a seed."""
    if seed is not None:
      saved = seed
    elif saved is self._known and not self._may_have_changed():
      return
    if isinstance(saved, int):
      self._seed(saved)
    else:
      self._generator.set_state(saved)
    self._remember(saved)

  def _seed(self, seed: int) -> None:
    if self._address is not None:
      self._generator.seed(seed)
      return
    state = _seeded(self._generator._bit_generator, seed)
    self._generator.set_state({**state, 'has_gauss': 0, 'gauss': 0.0})

  def _remember(self, state: Any) -> None:
    waits = not isinstance(state, int) and state['has_gauss']
    self._memory = None if waits else self._read_memory()
    self._known = state

  def _may_have_changed(self) -> bool:
    return self._memory is None or self._read_memory() != self._memory

  def _read_memory(self) -> bytes | None:
    if self._address is None:
      return None
    return ctypes.string_at(self._address, _MERSENNE_BYTES)


class PythonRandom:
  """A random.Random of Python."""

  def __init__(self, generator: random.Random):
    self._generator = generator

  def save(self) -> Any:
    """Returns the state."""
    return self._generator.getstate()

  def restore(self, saved: Any, seed: int | None) -> None:
    """Returns to a saved state, or starts anew with a seed."""
    if seed is None:
      self._generator.setstate(saved)
    else:
      self._generator.seed(seed)


def _seeded(bits: Any, seed: int) -> Any:
  """Returns the state of a numpy BitGenerator that a seed decides."""
  name = type(bits).__name__
  if name not in ('PCG64', 'PCG64DXSM'):
    return type(bits)(seed).state
  # These take any numbers; numpy's way from a seed takes ten times as long.
  digest = hashlib.blake2b(b'%d' % seed, digest_size=32).digest()
  return {
    'bit_generator': name,
    'state': {
      'state': int.from_bytes(digest[:16], 'little'),
      'inc': int.from_bytes(digest[16:], 'little') | 1,
    },
    'has_uint32': 0,
    'uinteger': 0,
  }


def _mersenne_address(generator: np.random.RandomState) -> int | None:
  """Returns where the state lies; None if it is not what numpy has there today."""
  bits: Any = generator._bit_generator
  if type(bits) is not np.random.MT19937:
    return None
  address: int = bits.ctypes.state_address
  memory = ctypes.string_at(address, _MERSENNE_BYTES)
  state = bits.state['state']
  if (
    memory[:_KEY_BYTES] != np.asarray(state['key'], np.uint32).tobytes()
    or int.from_bytes(memory[_KEY_BYTES:], sys.byteorder) != state['pos']
  ):
    return None
  return address
