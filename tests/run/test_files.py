"""Files that workers write and the launcher reads."""

import errno
import os

import pytest

from distacme.run import files


@pytest.mark.parametrize(
  ('data', 'read'),
  [
    (b'one\n\ttwo\n', 'one\n\ttwo\n'),
    (b'caf\xc3\xa9 \xff\xfe', 'caf\xe9 \ufffd\ufffd'),
    (b'\x1b[2Jgone\x07', '\ufffd[2Jgone\ufffd'),
    (b'', ''),
  ],
)
def test_the_tail_of_a_file_is_text_whatever_its_bytes(tmp_path, data, read):
  path = tmp_path / 'log'
  path.write_bytes(data)
  assert files.tail(path) == read


def test_the_tail_of_a_large_file_is_its_last_64_kib(tmp_path):
  path = tmp_path / 'log'
  with open(path, 'wb') as file:
    file.truncate(1 << 40)  # takes no room, and could not be read as a whole
    file.seek(0, os.SEEK_END)
    file.write(b'the end')
  tail = files.tail(path)
  assert len(tail) == 1 << 16
  assert tail.endswith('\ufffdthe end')


def test_the_tail_of_a_large_file_has_whole_lines(tmp_path):
  path = tmp_path / 'log'
  lines = [f'line {number} is one' for number in range(10_000)]
  path.write_text('\n'.join(lines))
  read = files.tail(path).split('\n')
  assert 3000 < len(read) < 10_000
  assert read == lines[-len(read) :]


def test_the_tail_of_no_file_is_empty(tmp_path):
  assert not files.tail(tmp_path / 'log')
  assert not files.tail(tmp_path)


def test_a_lack_of_descriptors_is_not_taken_for_a_full_disk():
  for why in (
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    'Failed to open: "x" [OS error 24: EMFILE Too many open files]',
  ):
    said = str(files.NotWrittenError('here', why))
    assert 'Let a process open more files (ulimit -n)' in said
    assert 'Make room' not in said
