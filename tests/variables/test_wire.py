"""Params survive the wire; headers that lie do not."""

import json
import math

import ml_dtypes
import numpy as np
import pytest

from distacme.rpc import messages
from distacme.variables import wire


def send(names, arrays, version=1):
  data, chunks = wire.encode(version, names, arrays)
  header = wire.decode_header(data)
  return wire.receive(header, iter(list(chunks))).arrays


def header_of(*leaves, version=1):
  return json.dumps({'version': version, 'leaves': leaves}).encode()


@pytest.mark.parametrize(
  'array',
  [
    np.arange(7, dtype=np.int8),
    np.float32(2.5),
    np.zeros((0, 3)),
    np.array([True, False]),
    np.arange(4, dtype=ml_dtypes.bfloat16),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(20)[::2],
    np.arange(wire.CHUNK_BYTES * 2 + 5, dtype=np.uint8),
  ],
  ids=lambda a: f'{a.dtype}{a.shape}',
)
def test_arrays_of_every_kind_arrive_as_they_were_sent(array):
  before, received, after = send(
    ['first', 'x', 'last'], [np.ones(3), array, np.ones(2, np.int16)]
  )
  assert received.dtype == array.dtype
  assert received.shape == array.shape
  np.testing.assert_array_equal(received, array)
  np.testing.assert_array_equal(before, np.ones(3))
  np.testing.assert_array_equal(after, np.ones(2))


def test_big_endian_arrays_arrive_with_their_values():
  (received,) = send(['x'], [np.arange(3, dtype='>f4')])
  np.testing.assert_array_equal(received, [0, 1, 2])


def test_received_arrays_are_aligned_and_cannot_be_written():
  arrays = send(['a', 'b'], [np.ones(3, np.uint8), np.ones(5)])
  for array in arrays:
    assert array.ctypes.data % wire.ALIGNMENT == 0
    with pytest.raises(ValueError, match='read-only'):
      array[0] = 2


def test_what_is_packed_is_json_whatever_the_numbers():
  message = {'a': [math.nan, -math.inf], 'b': {'c': math.inf, 'd': 1.5}}
  read = json.loads(messages.pack(message), parse_constant=pytest.fail)
  assert read == {'a': ['NaN', '-Infinity'], 'b': {'c': 'Infinity', 'd': 1.5}}


@pytest.mark.parametrize('number', ['NaN', 'Infinity', '-Infinity'])
def test_a_number_that_json_lacks_is_refused(number):
  with pytest.raises(ValueError, match=f'{number} is no number of JSON'):
    messages.unpack(f'{{"loss": {number}}}'.encode())


@pytest.mark.parametrize(
  ('header', 'message'),
  [
    (b'\x80\x04garbage', 'Not JSON'),
    (b'', 'Not JSON'),
    (b'[' * 100_000, 'Not JSON'),
    (b'[1, 2]', 'Not a JSON object'),
    (b'{}', 'version must be in'),
    (header_of(version=-1), 'version must be in'),
    (header_of(version=True), 'version must be in'),
    (header_of(version=2**63), 'version must be in'),
    (b'{"version": 1, "leaves": 3}', 'leaves must be a list'),
    (header_of(['w', 'float32']), r'A leaf is \[name, dtype, shape\]'),
    (header_of([7, 'float32', [1]]), 'A leaf has no name but 7'),
    (header_of(['w', 'object', [1]]), "Leaf 'w' has dtype 'object'; taken are"),
    (header_of(['w', ['O'], [1]]), "Leaf 'w' has dtype"),
    (header_of(['w', 'float32', [-1]]), "Leaf 'w' has shape"),
    (header_of(['w', 'float32', [1.5]]), "Leaf 'w' has shape"),
    (header_of(['w', 'float32', [2**70]]), "Leaf 'w' has shape"),
    (header_of(['w', 'float32', [2**20] * 9]), "Leaf 'w' has shape"),
    (header_of(['w', 'float32', [0, 2**30, 2**30]]), "Leaf 'w' has shape"),
    (header_of(['w', 'float32', [1] * 33]), "Leaf 'w' has shape"),
    (header_of(['w', 'float64', [2**28]]), "Params up to leaf 'w' have"),
    (header_of(*[[str(i), 'int8', [2**29]] for i in range(3)]), 'Params up to'),
    (header_of(['w', 'int8', [1]], ['w', 'int8', [1]]), 'same name'),
    (b' ' * (wire.MAX_HEADER_BYTES + 1), 'Header has'),
  ],
)
def test_a_header_that_is_none_or_lies_is_refused(header, message):
  with pytest.raises(ValueError, match=message):
    wire.decode_header(header)


@pytest.mark.parametrize(
  'chunks',
  [
    [],
    [b'x' * wire.CHUNK_BYTES],
    [b'x' * wire.CHUNK_BYTES, b'x' * 63],
    [b'x' * wire.CHUNK_BYTES, b'x' * 65],
    [b'x', b'x'],
    [b''],
  ],
)
def test_chunks_that_do_not_add_up_are_refused(chunks):
  header = wire.decode_header(
    header_of(['w', 'uint8', [wire.CHUNK_BYTES + 1]], version=5)
  )
  with pytest.raises(ValueError, match='Version 5 was cut or damaged'):
    wire.receive(header, iter(chunks))


def test_object_arrays_are_refused_before_anything_is_sent():
  with pytest.raises(ValueError, match="Leaf 'w' has dtype 'object'"):
    wire.encode(1, ['w'], [np.array([{}, []], dtype=object)])


def test_names_and_arrays_must_be_as_many():
  with pytest.raises(ValueError, match='1 names for 2 arrays'):
    wire.encode(1, ['w'], [np.ones(1), np.ones(1)])
