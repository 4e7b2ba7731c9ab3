"""What tells a user's function from another one of the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import functools
import hashlib
import inspect
import io
import pathlib
import sys
import tokenize
from typing import Any, NamedTuple

_PLAIN = (str, bytes, int, float, bool, type(None))
# What a comment, a line break or another depth of indentation makes different.
_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER)


class Identity(NamedTuple):
  """A function, as config.json names it.

  Attributes:
    name: its module and name, and plain values that it was given beforehand, as
      by functools.partial: my_envs:make(size=5).
    source: a hash of its code, without comments; '' if it is not known. What it
      calls is not in it.
  """

  name: str
  source: str


def of(function: Any) -> Identity:
  """Returns what is known of a function, a class or another callable."""
  given = ', '.join(_given(function))
  name = f'{_name(function)}({given})' if given else _name(function)
  return Identity(name, _source(function))


def _name(function: Any) -> str:
  function = _innermost(function)
  named = function if hasattr(function, '__qualname__') else type(function)
  module = named.__module__
  if module == '__main__':  # which every script is
    main = sys.modules['__main__']
    file = getattr(main, '__file__', None)
    if spec := getattr(main, '__spec__', None):  # python -m
      module = spec.name
    elif file:
      module = pathlib.Path(file).stem
  return f'{module}:{named.__qualname__}'


def _innermost(function: Any) -> Any:
  while isinstance(function, functools.partial):
    function = function.func
  return function


def _given(function: Any) -> Iterator[str]:
  """Yields what a partial was given, and what a closure holds."""
  while isinstance(function, functools.partial):
    yield from map(_spell, function.args)
    yield from (
      f'{k}={_spell(v)}' for k, v in sorted(function.keywords.items())
    )
    function = function.func
  function = inspect.unwrap(function)
  code = getattr(function, '__code__', None)
  cells = getattr(function, '__closure__', None) or ()
  for name, cell in zip(getattr(code, 'co_freevars', ()), cells, strict=False):
    try:
      yield f'{name}={_spell(cell.cell_contents)}'
    except ValueError:  # it has no value yet
      pass


def _spell(value: Any) -> str:
  """Returns a value as any process would write it, which has no address in it."""
  if isinstance(value, _PLAIN):
    return repr(value)
  if isinstance(value, tuple | list):
    return f'[{", ".join(map(_spell, value))}]'
  return _name(value)


def _source(function: Callable[..., Any]) -> str:
  function = _innermost(function)
  if not hasattr(function, '__qualname__'):  # an object with __call__
    function = type(function)
  try:
    text = inspect.getsource(function)
  except (OSError, TypeError):  # typed into a shell, or not Python
    return ''
  code = hashlib.sha256()
  try:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
      if token.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE):
        code.update(tokenize.tok_name[token.type].encode())
      elif token.type not in _LAYOUT:
        code.update(token.string.encode())
  except (tokenize.TokenError, SyntaxError):  # of a lambda, part of a statement
    pass
  return code.hexdigest()[:16]
