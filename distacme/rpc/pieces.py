"""Long messages, cut into pieces that gRPC takes and that let others through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# No message exceeds gRPC's default limit of 4 MiB, which stays in force.
BYTES = 1 << 20


def cut(parts: Iterable[memoryview]) -> Iterator[bytes]:
  """Yields what `parts` are together, cut every BYTES; reads them lazily."""
  pieces: list[memoryview] = []
  room = BYTES
  for part in parts:
    while len(part) >= room:
      pieces.append(part[:room])
      yield b''.join(pieces)  # the only copy
      part, pieces, room = part[room:], [], BYTES
    if len(part):
      pieces.append(part)
      room -= len(part)
  if pieces:
    yield b''.join(pieces)


def check(size: int, received: int, piece: bytes) -> int:
  """Checks the next piece of a long message.

  Args:
    size: bytes of the whole message.
    received: bytes of the earlier pieces.
    piece: what came; b'' if nothing did.

  Returns:
    The bytes received so far, with this piece.

  Raises:
    ValueError: if the piece has another length than its place asks for. Lengths
      are exact, so that a sender cannot waste memory by small pieces.
  """
  wanted = min(BYTES, size - received)
  if len(piece) != wanted:
    raise ValueError(
      f'cut or damaged: after {received} of {size} bytes a piece of {wanted} was '
      f'due, {len(piece)} bytes came.'
    )
  return received + wanted
