"""Makes Atari 2600 games of ale-py's vector environment, written in C++.

Preprocessing is that of Mnih et al. 2015 (Nature 518). Every action is taken
for 4 frames; the brighter of the last two is seen, in 84 x 84 shades of grey.
An observation stacks 4 of these on the last axis, the newest last, black before
an episode's first. Up to 30 frames without action precede an episode. An
episode lasts the whole game, and is truncated after 108,000 frames, 30 minutes
of play.

Frames are those of the emulator. A step of an agent is 4 frames.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import dm_env
import numpy as np

from distacme import specs
from distacme import types
from distacme.environments import gymnasium_adapters
from distacme.environments import hints
from distacme.environments import name_options
from distacme.environments import vector
from distacme.environments import wrappers

# For two players only: ale-py would end the whole process.
_FOR_TWO = ('combat', 'joust', 'maze_craze', 'warlords')
_STACK = 4
_FRAME_SKIP = 4
_HEIGHT, _WIDTH = 210, 160  # pixels of a picture


@dataclasses.dataclass(frozen=True)
class Options:
  """Options after the name of a game: 'atari:Pong?sticky_actions=0.25'."""

  sticky_actions: float = 0.0
  """Chance that a frame repeats the last action; Machado et al. 2018: 0.25."""
  clip_rewards: bool = False
  """Whether to clip rewards to [-1, 1]; returns are then no scores."""
  terminal_on_life_loss: bool = False
  """Whether the discount is 0 where a life is lost; the game goes on."""
  full_action_space: bool = False
  """Whether to have all 18 actions, not only those that the game uses."""
  max_frames: int = 108_000
  """Frames after which a game is truncated."""

  def __post_init__(self) -> None:
    if not 0.0 <= self.sticky_actions < 1.0:
      raise ValueError(
        f'sticky_actions must be in [0, 1), got {self.sticky_actions}.'
      )
    if self.max_frames < _FRAME_SKIP:
      raise ValueError(
        f'max_frames must be at least {_FRAME_SKIP}, one step, got '
        f'{self.max_frames}.'
      )


def make(text: str, seed: int, render: bool = False) -> dm_env.Environment:
  """Returns a game: 'Pong' or 'Pong?option=value&option=value'.

  Raises:
    ValueError: if there is no such game or option, or ale-py is not installed.
  """
  game, options = _game_and_options(text)
  environment = vector.SingleRow(AtariVector(game, options, [seed]))
  if not render:
    return environment
  return Pictures(environment, _screen(game, options, seed))


def make_native_vector(text: str, seeds: Sequence[int]) -> AtariVector:
  """Returns several games of `make`, stepped together; raises as `make`."""
  return AtariVector(*_game_and_options(text), seeds)


class AtariVector(gymnasium_adapters.NativeVector):
  """Steps several games of one kind; observes uint8 [N, 84, 84, 4]."""

  def __init__(self, game: str, options: Options, seeds: Sequence[int]):
    """Takes ale-py's name of a game, and a seed for each row."""
    super().__init__(_vector_env(game, options, len(seeds)), np.array(seeds))
    height, width = self._observation_spec.shape[1:]
    self._observation_spec = specs.FrameStack(
      (height, width, _STACK), np.uint8, 0, 255, 'observation'
    )
    self._terminal_on_life_loss = options.terminal_on_life_loss
    self._lives = np.zeros(self.num_envs, np.int32)

  def reset(self) -> dm_env.TimeStep:
    """Starts all rows anew."""
    timestep = super().reset()
    self._lives = self._info['lives']
    return timestep

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Steps every row with `action` [N]."""
    timestep = super().step(action)
    lives, self._lives = self._lives, self._info['lives']
    if self._terminal_on_life_loss:
      lost = (self._lives < lives) & (timestep.step_type != types.FIRST)
      timestep.discount[lost] = 0.0
    return timestep

  def _copied(self, observation: np.ndarray) -> np.ndarray:
    # Channels last, as convolutions take them: 2 % of a step, `transpose` 13 %.
    images = np.empty((self.num_envs, *self._observation_spec.shape), np.uint8)
    for frame in range(_STACK):
      images[..., frame] = observation[:, frame]
    return images


class Pictures(wrappers.Wrapper):
  """Renders a game from a second one in colour, with the same random draws."""

  metadata = {'render_fps': 60 // _FRAME_SKIP}

  def __init__(
    self,
    environment: dm_env.Environment,
    screen: gymnasium_adapters.NativeVector,
  ):
    """Takes an environment, and `screen`, a vector of one row of the same game.

    Both have the same options and seed.
    """
    super().__init__(environment)
    self._screen = screen
    self._picture = np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    self._picture = self._screen.reset().observation[0, 0]
    return super().reset()

  def step(self, action: int) -> dm_env.TimeStep:
    """Takes a step, or starts an episode if the last one is over."""
    shown = self._screen.step(np.array([action], np.int32))
    self._picture = shown.observation[0, 0]
    return super().step(action)

  def render(self) -> np.ndarray:
    """Returns the screen, uint8 [210, 160, 3]."""
    return self._picture

  def close(self) -> None:
    """Closes both games."""
    self._screen.close()
    super().close()


def _screen(
  game: str, options: Options, seed: int
) -> gymnasium_adapters.NativeVector:
  environment = _vector_env(
    game,
    options,
    1,
    grayscale=False,
    stack_num=1,
    img_height=_HEIGHT,
    img_width=_WIDTH,
  )
  return gymnasium_adapters.NativeVector(environment, np.array([seed]))


def _vector_env(
  game: str, options: Options, num_envs: int, **preprocessing: Any
) -> Any:
  from ale_py import vector_env

  return vector_env.AtariVectorEnv(
    game,
    num_envs,
    max_num_frames_per_episode=options.max_frames,
    repeat_action_probability=options.sticky_actions,
    full_action_space=options.full_action_space,
    reward_clipping=options.clip_rewards,
    use_fire_reset=False,
    frameskip=_FRAME_SKIP,
    **{'stack_num': _STACK, **preprocessing},
  )


def _game_and_options(text: str) -> tuple[str, Options]:
  """Returns ale-py's name of the game, and the options.

  Raises:
    ValueError: as `make`.
  """
  game, options = name_options.parse('atari', text, Options)
  try:
    # vector_env imports gymnasium: a missing gymnasium is named here, too.
    from ale_py import roms
    from ale_py import vector_env  # noqa: F401
  except ImportError as error:
    raise ValueError(
      f"Environment 'atari:{game}' needs ale_py, which cannot be imported "
      f"({error}). Run: pip install 'distacme[envs]'"
    ) from error
  known = {
    rom.title().replace('_', ''): rom
    for rom in roms.get_all_rom_ids()
    if rom not in _FOR_TWO
  }
  for name, rom in known.items():
    if game.replace('_', '').lower() == name.lower():
      return rom, options
  raise ValueError(
    f"No environment is called 'atari:{game}'. "
    f"{hints.did_you_mean(game, known)}A name is a game, like 'atari:Pong' or "
    f"'atari:Pong?sticky_actions=0.25'; known: {', '.join(known)}. Known "
    f'options: {name_options.describe(Options)}.'
  )
