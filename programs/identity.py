"""Tells a user's function from another function of the same name."""

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
# Tokens that differ with comments, line breaks and the depth of indentation.
_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER)


class Identity(NamedTuple):
  """A function, as config.json names it.

  Attributes:
    name: the function's module and name, and plain values that were bound to
      the function beforehand, e.g. by functools.partial: my_envs:make(size=5).
    source: a hash of the function's code, without comments; '' if the code is
      not known. Functions that the code calls are not part of the hash.
  """

  name: str
  source: str


def of(function: Any) -> Identity:
  """Returns the identity of a function, a class or another callable."""
  given = ', '.join(_given(function))
  name = f'{_name(function)}({given})' if given else _name(function)
  return Identity(name, _source(function))


def _name(function: Any) -> str:
  function = _innermost(function)
  named = function if hasattr(function, '__qualname__') else type(function)
  module = named.__module__
  if module == '__main__':  # the name of every script's module
    main = sys.modules['__main__']
    file = getattr(main, '__file__', None)
    if spec := getattr(main, '__spec__', None):  # started by python -m
      module = spec.name
    elif file:
      module = pathlib.Path(file).stem
  return f'{module}:{named.__qualname__}'


def _innermost(function: Any) -> Any:
  while isinstance(function, functools.partial):
    function = function.func
  return function


def _given(function: Any) -> Iterator[str]:
  """Yields the arguments of a partial, and the values that a closure holds."""
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
    except ValueError:  # the cell has no value yet
      pass


def _spell(value: Any) -> str:
  """Returns a value in words that are the same in any process: no addresses."""
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
  except (
    tokenize.TokenError,
    SyntaxError,
  ):  # a lambda's lines, part of a statement
    pass
  return code.hexdigest()[:16]
