"""Options in an environment's name: 'atari:Pong?sticky_actions=0.25'.

In the name, so that they reach every process, config.json and the next run as
the same piece of data.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar
import urllib.parse

from distacme.environments import hints

Options = TypeVar('Options')


def parse(
  family: str, text: str, options: type[Options]
) -> tuple[str, Options]:
  """Returns what precedes the question mark in `text`, and the options after it.

  Args:
    family: of the environment, for messages.
    text: like 'Pong?sticky_actions=0.25&clip_rewards=true'.
    options: a dataclass of booleans, floats and integers with defaults.

  Raises:
    ValueError: if an option is not known or has no such value.
  """
  environment, texts = split(text)
  name = f'{family}:{text}'
  known = {field.name: field.default for field in _fields(options)}
  values: dict[str, Any] = {}
  for key, value in texts.items():
    if key not in known:
      raise ValueError(
        f'Environment {name!r}: there is no option {key!r}. '
        f'{hints.did_you_mean(key, known)}Known options: {describe(options)}.'
      )
    values[key] = _value(name, key, value, type(known[key]))
  try:
    return environment, options(**values)
  except ValueError as error:
    raise ValueError(f'Environment {name!r}: {error}') from error


def split(text: str) -> tuple[str, dict[str, str]]:
  """Returns what precedes the question mark, and the options as they stand."""
  environment, _, query = text.partition('?')
  pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
  return environment, dict(pairs)


def value_like(name: str, key: str, text: str, default: Any) -> Any:
  """Returns the value that `text` means where `default` would stand.

  Args:
    name: of the environment, for messages.
    key: of the option.
    text: a boolean, a number or a word, as `default` is; 'none' is None. What
      it is decides where there is no such default.
    default: of any type.

  Raises:
    ValueError: if it is a boolean or a number, and `text` is none.
  """
  if text.lower() == 'none':
    return None
  if isinstance(default, str):
    return text
  if isinstance(default, bool):
    return _value(name, key, text, bool)
  if isinstance(default, (int, float)):
    try:
      return int(text)
    except ValueError:
      return _value(name, key, text, float)
  if text.lower() in ('true', 'false'):
    return text.lower() == 'true'
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      pass
  return text


def describe(options: type[Any]) -> str:
  """Returns all options with their defaults, as they are written in a name."""
  return ', '.join(
    f'{field.name}={str(field.default).lower()}' for field in _fields(options)
  )


def _fields(options: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
  return dataclasses.fields(options)


def _value(name: str, key: str, text: str, kind: type[Any]) -> Any:
  """Returns `text` as a value of type `kind`."""
  if kind is bool:
    if text.lower() in ('true', 'false'):
      return text.lower() == 'true'
  else:
    try:
      return kind(text)
    except ValueError:
      pass
  wanted = {bool: 'true or false', int: 'a whole number', float: 'a number'}
  raise ValueError(
    f'Environment {name!r}: {key} must be {wanted[kind]}, got {text!r}.'
  )
