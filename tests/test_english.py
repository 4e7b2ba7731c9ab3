"""Every docstring names its thing first: no clause of a question word."""

from __future__ import annotations

import ast
from collections.abc import Iterator
import pathlib
import re

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_FOLDERS = ('distacme', 'agents', 'programs', 'deploy')
_CLAUSE = re.compile(
  r'(What|Who|Whose|Whom|Whoever|Whatever|Where|When|How|Why|Which|'
  r'Returns what|Says what|Says who)\b'
)


def _docstrings(source: str) -> Iterator[tuple[int, str]]:
  """Yields line and text of each docstring, those of fields included."""
  for node in ast.walk(ast.parse(source)):
    body = getattr(node, 'body', None)
    for statement in body if isinstance(body, list) else []:
      if isinstance(statement, ast.Expr) and isinstance(
        statement.value, ast.Constant
      ):
        if isinstance(text := statement.value.value, str):
          yield statement.lineno, text.strip()


def _clauses(source: str) -> list[tuple[int, str]]:
  """Returns line and first line of each docstring that begins with a clause."""
  return [
    (line, text.partition('\n')[0])
    for line, text in _docstrings(source)
    if _CLAUSE.match(text)
  ]


@pytest.mark.parametrize('folder', _FOLDERS)
def test_docstrings_begin_with_a_verb_or_a_name(folder):
  files = sorted((_ROOT / folder).rglob('*.py'))
  assert files
  found = [
    f'{path.relative_to(_ROOT)}:{line}: {text}'
    for path in files
    for line, text in _clauses(path.read_text())
  ]
  assert not found, (
    'Begin these docstrings with a verb and its object, or with the name of '
    'the thing:\n' + '\n'.join(found)
  )


@pytest.mark.parametrize(
  'text',
  ['What it is.', 'Whoever asks.', 'Returns what came.', '\n  How to do it.'],
)
def test_clauses_are_found_in_modules_classes_functions_and_fields(text):
  string = f'"""{text}"""'
  for source in (
    string,
    f'class A:\n  {string}',
    f'class A:\n  b: int = 0\n  {string}',
    f'def a():\n  {string}',
    f'async def a():\n  {string}',
  ):
    assert len(_clauses(source)) == 1, source


@pytest.mark.parametrize('text', ['Returns whether it is.', 'Whichever.'])
def test_other_sentences_pass(text):
  assert not _clauses(f'"""{text}"""')
