"""Recorded episodes and where they are from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import functools
from typing import Any

from distacme import specs
from distacme import types
from distacme.demonstrations import checks
from distacme.demonstrations import episodes as episodes_lib


@dataclasses.dataclass(frozen=True)
class Demonstrations:
  """Recorded episodes and where they are from.

  Attributes:
    source: the place, for messages.
    read: returns an iterator of the episodes, from the first one on.
    observations: spec of an observation, if the source has one.
    actions: spec of an action, if the source has one.
    environment: name of the environment that was recorded, if the source has one.
  """

  source: str
  read: Callable[[], Iterator[episodes_lib.Episode]] = dataclasses.field(
    repr=False
  )
  observations: types.NestedSpec = None
  actions: types.NestedSpec = None
  environment: str = ''

  def checked(
    self, spec: specs.EnvironmentSpec
  ) -> Iterator[episodes_lib.Episode]:
    """Yields the episodes; each is held against the specs of an environment.

    Raises:
      ValueError: if the source's specs are not those of the environment, there is
        no episode, or an episode does not fit; the message names the field, both
        values and the source.
    """
    for field, theirs, ours in (
      ('observation', self.observations, spec.observations),
      ('action', self.actions, spec.actions),
    ):
      if theirs is not None:
        checks.check_specs(field, theirs, ours, self.source)
    number = -1
    for number, episode in enumerate(self.read()):
      yield checks.checked(episode, spec, f'episode {number} of {self.source}')
    if number < 0:
      raise ValueError(f'There is no episode in {self.source}. Record some.')


def from_episodes(
  episodes: Iterable[Mapping[str, Any]],
) -> Demonstrations:
  """Returns demonstrations made of a user's arrays.

  Args:
    episodes: of each episode of T steps a mapping with 'observations', a nest of
      arrays [T + 1, ...], 'actions', a nest of arrays [T, ...], 'rewards' [T], and
      'terminated', True if the episode reached a terminal state and False if it
      was cut off. 'discounts' [T] may stand in the place of 'terminated'.

  Raises:
    ValueError: if a mapping lacks a key or has one too many, or an array has
      another length.
  """
  made = [
    episodes_lib.as_episode(each, number)
    for number, each in enumerate(episodes)
  ]
  return Demonstrations('the given episodes', functools.partial(iter, made))
