"""Small messages as JSON, from peers that are not trusted."""

from __future__ import annotations

import json
from typing import Any

from distacme.run import files


def _refuse(constant: str) -> float:
  raise ValueError(f'{constant} is no number of JSON')


_ENCODER = json.JSONEncoder(allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse)


def pack(message: dict[str, Any]) -> bytes:
  """Returns `message` as JSON, with NaN and infinities as strings."""
  try:
    return _ENCODER.encode(message).encode()
  except ValueError:
    return _ENCODER.encode(files.spelled(message)).encode()


def unpack(data: bytes) -> dict[str, Any]:
  """Reads a JSON object; raises ValueError for other data."""
  try:
    message = _DECODER.decode(data.decode())
    if b'\\u' in data:  # half a surrogate pair can be neither sent nor logged
      json.dumps(message, ensure_ascii=False).encode()
  except (ValueError, RecursionError) as error:
    raise ValueError(f'Not JSON: {error}.') from None
  if not isinstance(message, dict):
    raise ValueError(f'Not a JSON object: {message!r:.80}.')
  return message
