"""The protocol of the variable service: gRPC methods, and bytes on the wire.

  Publish     header, chunk, chunk, ...  ->  {accepted, newest}
  Subscribe   {version, period_s}        ->  header, chunk, ..., header, ...
  Report      {worker, session, sequence, alive, counts, metrics, state}
                                         ->  {stop, counts, params_version,
                                              period_s}
  WaitStop    {}                         ->  as Report, once the run is to stop
  RequestStop {worker, reason, detail}   ->  as Report
  Fail        {worker, detail}           ->  as Report
  Scale       {num_actors}               ->  as Report
  Status      {workers}                  ->  status.Status

A relay answers Subscribe alone. {...} and headers are JSON. Metrics may be NaN and
infinities, which are the strings "NaN", "Infinity" and "-Infinity" (`rpc.messages`). A
subscriber has the version and gets newer ones, at most one every period_s, which may be
absent. A status tells of the workers of that names, or of all if they are absent. A
header is
{version, leaves: [[name, dtype, shape], ...]}. Its chunks are the leaves' bytes
in C order, little endian, each leaf padded to ALIGNMENT, cut every CHUNK_BYTES.
Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import math
from typing import Any, NamedTuple

import numpy as np

from distacme.rpc import messages
from distacme.rpc import pieces
from distacme.rpc import service

SERVICE = service.Service('distacme.Variables', 'variable server')
# Answers Subscribe alone, so that subscribers need not know which of the two they ask.
RELAY = SERVICE._replace(title='relay')
CHUNK_BYTES = pieces.BYTES
# JAX uses a buffer of this alignment on the CPU without a copy.
ALIGNMENT = 64
MAX_HEADER_BYTES = 1 << 20
# Of a report; a client drops older moments.
MAX_MOMENTS = 1000
MAX_VALUES = 20_000  # of all moments
MAX_METRICS = 1000  # of one moment, which only a client looks at
MAX_PARAMS_BYTES = 1 << 30
_MAX_NDIM = 32  # numpy's

_ITEMSIZE = {
  **{'bool': 1, 'int8': 1, 'int16': 2, 'int32': 4, 'int64': 8},
  **{'uint8': 1, 'uint16': 2, 'uint32': 4, 'uint64': 8},
  **{'float16': 2, 'bfloat16': 2, 'float32': 4, 'float64': 8},
  **{'complex64': 8, 'complex128': 16},
}


class VersionedArrays(NamedTuple):
  """A version of params as named arrays, for clients."""

  version: int
  names: list[str]
  arrays: list[np.ndarray]


class VersionedBytes(NamedTuple):
  """A version of params as bytes on the wire, for servers and relays."""

  version: int
  header: bytes
  chunks: list[bytes]


class Leaf(NamedTuple):
  """One array in the chunks."""

  name: str
  dtype: str
  shape: tuple[int, ...]
  offset: int  # bytes from the first chunk's start
  nbytes: int


class Header(NamedTuple):
  """The contents of a header: a list of the arrays in the chunks."""

  version: int
  leaves: tuple[Leaf, ...]
  size: int  # bytes of all chunks


def encode(
  version: int, names: Sequence[str], arrays: Sequence[np.ndarray]
) -> tuple[bytes, Iterator[bytes]]:
  """Returns header and chunks; the iterator of chunks reads the arrays lazily."""
  if len(names) != len(arrays):
    raise ValueError(f'{len(names)} names for {len(arrays)} arrays.')
  native = [
    np.asarray(a, dtype=a.dtype.newbyteorder('='), order='C') for a in arrays
  ]
  header = messages.pack(
    {
      'version': int(version),
      'leaves': [
        (name, a.dtype.name, a.shape)
        for name, a in zip(names, native, strict=True)
      ],
    }
  )
  decode_header(header)  # raises if the server would refuse it
  return header, pieces.cut(_segments(native))


def _segments(arrays: Iterable[np.ndarray]) -> Iterator[memoryview]:
  for array in arrays:
    yield array.reshape(-1).view(np.uint8).data
    yield memoryview(bytes(-array.nbytes % ALIGNMENT))


def decode_header(data: bytes) -> Header:
  """Reads a header from a peer that is not trusted.

  Args:
    data: JSON.

  Returns:
    The header. Its sizes agree and are at most MAX_PARAMS_BYTES.

  Raises:
    ValueError: if `data` is anything else.
  """
  if len(data) > MAX_HEADER_BYTES:
    raise ValueError(
      f'Header has {len(data)} bytes; at most {MAX_HEADER_BYTES} are taken.'
    )
  message = messages.unpack(data)
  version, listed = message.get('version'), message.get('leaves')
  if type(version) is not int or not 0 <= version < 2**63:
    raise ValueError(f'version must be in [0, 2**63), got {version!r:.80}.')
  if not isinstance(listed, list):
    raise ValueError(f'leaves must be a list, got {listed!r:.80}.')
  leaves: list[Leaf] = []
  size = 0
  for entry in listed:
    leaf = _decode_leaf(entry, size)
    leaves.append(leaf)
    size += leaf.nbytes + -leaf.nbytes % ALIGNMENT
    if size > MAX_PARAMS_BYTES:
      raise ValueError(
        f'Params up to leaf {leaf.name!r:.80} have {size} bytes; at most'
        f' {MAX_PARAMS_BYTES} are taken.'
      )
  if len({leaf.name for leaf in leaves}) < len(leaves):
    raise ValueError('Two leaves have the same name.')
  return Header(version, tuple(leaves), size)


def _decode_leaf(entry: Any, offset: int) -> Leaf:
  if not isinstance(entry, list) or len(entry) != 3:
    raise ValueError(f'A leaf is [name, dtype, shape], got {entry!r:.80}.')
  name, dtype, shape = entry
  if not isinstance(name, str):
    raise ValueError(f'A leaf has no name but {name!r:.80}.')
  if not isinstance(dtype, str) or dtype not in _ITEMSIZE:
    raise ValueError(
      f'Leaf {name!r:.80} has dtype {dtype!r:.80}; taken are'
      f' {", ".join(_ITEMSIZE)}.'
    )
  # The product omits zeros: [0, 2**62, 2**62] is too large an array as well.
  if (
    not isinstance(shape, list)
    or len(shape) > _MAX_NDIM
    or not all(type(n) is int and 0 <= n <= MAX_PARAMS_BYTES for n in shape)
    or math.prod(n for n in shape if n) > MAX_PARAMS_BYTES
  ):
    raise ValueError(
      f'Leaf {name!r:.80} has shape {shape!r:.80}; a shape is a list of at'
      f' most {_MAX_NDIM} sizes and {MAX_PARAMS_BYTES} elements.'
    )
  return Leaf(
    name, dtype, tuple(shape), offset, math.prod(shape) * _ITEMSIZE[dtype]
  )


def check_chunk(header: Header, received: int, chunk: bytes) -> int:
  """Checks the next chunk of a header.

  Args:
    header: of the chunks.
    received: bytes of the earlier chunks.
    chunk: the received message; b'' if there was none.

  Returns:
    The bytes received so far, with this chunk.

  Raises:
    ValueError: if the chunk has another length than its place asks for.
  """
  try:
    return pieces.check(header.size, received, chunk)
  except ValueError as error:
    raise ValueError(f'Version {header.version} was {error}') from None


def receive_bytes(
  data: bytes, header: Header, chunks: Iterator[bytes]
) -> VersionedBytes:
  """Reads the chunks of `header` as they are, and nothing after the last chunk.

  Args:
    data: the header on the wire.
    header: that `data` says.
    chunks: of the header, and whatever follows.

  Raises:
    ValueError: if a chunk is missing or has a wrong length.
  """
  received, kept = 0, []
  while received < header.size:
    chunk = next(chunks, b'')
    received = check_chunk(header, received, chunk)
    kept.append(chunk)
  return VersionedBytes(header.version, data, kept)


def receive(header: Header, chunks: Iterator[bytes]) -> VersionedArrays:
  """Reads the chunks of `header`, and nothing after the last chunk.

  Returns:
    Read-only arrays, in fresh memory.

  Raises:
    ValueError: if a chunk is missing or has a wrong length.
  """
  memory = np.empty(header.size + ALIGNMENT, np.uint8)
  buffer = memory[-memory.ctypes.data % ALIGNMENT :][: header.size]
  received = 0
  while received < header.size:
    chunk = next(chunks, b'')
    end = check_chunk(header, received, chunk)
    buffer[received:end] = np.frombuffer(chunk, np.uint8)
    received = end
  buffer.flags.writeable = False
  return VersionedArrays(
    header.version,
    [leaf.name for leaf in header.leaves],
    [
      buffer[leaf.offset : leaf.offset + leaf.nbytes]
      .view(_dtype(leaf.dtype))
      .reshape(leaf.shape)
      for leaf in header.leaves
    ],
  )


def _dtype(name: str) -> np.dtype:
  if name == 'bfloat16':
    import ml_dtypes  # comes with JAX; numpy alone has no bfloat16

    return np.dtype(ml_dtypes.bfloat16)
  return np.dtype(name)
