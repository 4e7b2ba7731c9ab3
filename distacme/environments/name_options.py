"""Parses options in an environment's name: 'atari:Pong?sticky_actions=0.25'.

Options stand in the name so that every process, config.json and a resumed run
get them with it.
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
  """Returns the environment and the options of 'environment?options'.

  Args:
    family: of the environment, for messages.
    text: like 'Pong?sticky_actions=0.25&clip_rewards=true'.
    options: a dataclass of booleans, floats and integers with defaults.

  Raises:
    ValueError: if an option is unknown or cannot have the value.
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
  """Returns the environment, and the texts of its options by name."""
  environment, _, query = text.partition('?')
  pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
  return environment, dict(pairs)


def value_like(name: str, key: str, text: str, default: Any) -> Any:
  """Returns `text` as a value of the kind of `default`.

  Args:
    name: of the environment, for messages.
    key: of the option.
    text: a boolean, a number or a word; 'none' is None.
    default: its kind decides: boolean, number or word. For a default of another
      kind, `text` is the first that fits: boolean, integer, float, word.

  Raises:
    ValueError: if `default` is a boolean or a number, and `text` is not.
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
  """Returns all options with their defaults, written as in a name."""
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
