"""Progress in a notebook's cell, against the few calls of IPython that it needs."""

import io
import sys
import types

import pytest
from rich import console as rich_console
from rich import table as rich_table

from distacme.programs.view import notebook
from distacme.programs.view import progress


class Handle:
  """Keeps the pictures of an output."""

  def __init__(self):
    self.pictures = []

  def update(self, picture):
    self.pictures.append(picture)


@pytest.fixture(name='handle')
def fixture_handle(monkeypatch):
  """Makes this process look like a kernel; returns its one output."""
  handle = Handle()
  display = types.SimpleNamespace(
    HTML=str, display=lambda picture, display_id: handle
  )
  shell = types.SimpleNamespace(kernel=object())
  ipython = types.ModuleType('IPython')
  ipython.get_ipython = lambda: shell
  ipython.display = display
  monkeypatch.setitem(sys.modules, 'IPython', ipython)
  monkeypatch.setitem(sys.modules, 'IPython.display', display)
  return handle


def test_a_kernel_is_known_and_a_shell_is_none(monkeypatch, handle):
  assert notebook.is_here()
  monkeypatch.setattr(sys.modules['IPython'], 'get_ipython', object)
  assert not notebook.is_here()
  monkeypatch.delitem(sys.modules, 'IPython')
  assert not notebook.is_here()


def test_the_table_is_replaced_in_place_and_no_line_is_printed(handle):
  table = rich_table.Table('worker', 'does')
  table.add_row('actor/0 <b>', 'acting')
  output = io.StringIO()
  with progress.Display(rich_console.Console(file=output)) as shown:
    for last in (False, False, True):
      shown.show_view(lambda: table, lambda: ['a line'], last=last)
  assert output.getvalue() == ''
  assert len(handle.pictures) == 2  # too soon for the one in the middle
  assert 'actor/0 &lt;b&gt;' in handle.pictures[-1]
