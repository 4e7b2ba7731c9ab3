"""Makes Reverb listen on loopback, since Reverb has no such option.

Reverb's server binds its port on all interfaces, without authentication. Reverb's
library calls the system's `bind` by an address in a table that the loader filled.
This module replaces that address by a function that binds 127.0.0.1 instead of
"any". The replacement needs no rights, works beside threads, and costs nothing once
the server listens.

The module depends on the form of shared libraries on 64-bit Linux, the only system
with Reverb, and promises nothing. To learn where a server listens, ask the kernel
(`runtime.listening`).
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import socket
import struct
import sys
from typing import Any

# Tags of a library's dynamic section (elf.h): its calls of other libraries, the size
# of these, and the symbols and names that the calls refer to.
_JMPREL, _PLTRELSZ, _SYMTAB, _STRTAB = 23, 2, 6, 5
_ENTRY_BYTES = 24  # of a call, and of a symbol

_Bind = ctypes.CFUNCTYPE(
  ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, use_errno=True
)


@functools.lru_cache
def confine(library: str) -> bool:
  """Makes servers that a library starts from now on listen on loopback.

  Args:
    library: path of a loaded shared library.

  Returns:
    Whether the library has the expected form; if not, nothing was changed.
  """
  if sys.platform != 'linux' or sys.maxsize < 2**32:
    return False
  try:
    slot = _find_slot(library, b'bind')
    _write(slot, ctypes.cast(_bind(), ctypes.c_void_p))
  except (OSError, LookupError):
    return False
  return True


@functools.lru_cache  # keeps the function alive for C
def _bind() -> Any:
  """Returns `bind` for C, with loopback instead of all interfaces."""
  libc = ctypes.CDLL(None, use_errno=True)

  def bind(number: int, address: int, size: int) -> int:
    raw = bytearray(ctypes.string_at(address, size))
    (family,) = struct.unpack_from('=H', raw)
    if family == socket.AF_INET and not any(raw[4:8]):
      raw[4:8] = socket.inet_aton('127.0.0.1')
    elif family == socket.AF_INET6 and not any(raw[8:24]):
      # 127.0.0.1 for a socket of both IPv4 and IPv6.
      raw[8:24] = socket.inet_pton(socket.AF_INET6, '::ffff:127.0.0.1')
    result: int = libc.bind(number, bytes(raw), size)
    return result

  return _Bind(bind)


def _find_slot(library: str, function: bytes) -> int:
  """Returns the place in a library's table of the address of a function.

  Raises:
    OSError: if the library is not loaded.
    LookupError: if the library does not call the function by such a table.
  """
  handle = ctypes.CDLL(library, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
  # The loader's link_map: the library's base, its name, its dynamic section.
  base, _, section = (ctypes.c_size_t * 3).from_address(handle._handle)
  tags: dict[int, int] = {}
  while (pair := (ctypes.c_size_t * 2).from_address(section))[0]:
    tags[pair[0]] = pair[1]
    section += ctypes.sizeof(pair)
  calls = tags[_JMPREL]
  for call in range(calls, calls + tags[_PLTRELSZ], _ENTRY_BYTES):
    offset, info = (ctypes.c_uint64 * 2).from_address(call)
    symbol = tags[_SYMTAB] + (info >> 32) * _ENTRY_BYTES
    name = tags[_STRTAB] + ctypes.c_uint32.from_address(symbol).value
    if ctypes.string_at(name) == function:
      return base + offset
  raise LookupError(f'{library} does not call {function!r}.')


def _write(slot: int, function: ctypes.c_void_p) -> None:
  """Writes an address into a table that the loader may have locked.

  Raises:
    OSError: if the system does not allow it.
  """
  before = _protection(slot)
  _protect(slot, before | mmap.PROT_WRITE)
  ctypes.c_void_p.from_address(slot).value = function.value
  _protect(slot, before)


def _protection(address: int) -> int:
  """Returns the protection flags of the memory at `address`."""
  with open('/proc/self/maps') as maps:
    for line in maps:
      span, allowed, *_ = line.split()
      first, end = (int(number, 16) for number in span.split('-'))
      if first <= address < end:
        return (
          ('r' in allowed) * mmap.PROT_READ
          | ('w' in allowed) * mmap.PROT_WRITE
          | ('x' in allowed) * mmap.PROT_EXEC
        )
  raise LookupError(f'There is no memory at {address:#x}.')


def _protect(address: int, protection: int) -> None:
  page = ctypes.c_void_p(address - address % mmap.PAGESIZE)
  libc = ctypes.CDLL(None, use_errno=True)
  if libc.mprotect(page, ctypes.c_size_t(mmap.PAGESIZE), protection):
    raise OSError(ctypes.get_errno(), 'mprotect')
