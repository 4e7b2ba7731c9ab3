"""Presets: defaults of an agent's settings for kinds of environments."""

import dataclasses

import pytest

from distacme.programs import agents_by_name
from distacme.programs import presets
from distacme.programs import run_config
from distacme.programs.commands import train


def parsed(*arguments):
  experiment, _ = train.parse(arguments)
  return experiment


@pytest.mark.parametrize('preset', presets.PRESETS, ids=lambda p: p[:2])
def test_a_preset_is_of_settings_that_there_are_and_changes_each(preset):
  made = agents_by_name.agent_module(preset.agent).Config()
  changed = dataclasses.replace(made, **preset.settings)
  for name in preset.settings:
    assert getattr(changed, name) != getattr(made, name), name
  run = run_config.RunConfig(agent=preset.agent, **preset.run)
  for name in preset.run:
    assert getattr(run, name) != getattr(run_config.RunConfig(), name), name
  names = [p.name for p in presets.of_agent(preset.agent)]
  assert len(set(names)) == len(names)
  assert not {presets.AUTO, presets.NONE} & set(names)


def test_the_environment_chooses_a_preset_and_flags_go_over_it():
  flags = ('--agent', 'ppo', '--env', 'atari:Pong')
  experiment = parsed(*flags)
  assert experiment.agent == presets.config('ppo', 'atari:Pong')
  assert experiment.agent.max_abs_reward == 1.0
  assert experiment.run.envs_per_actor == 8
  experiment = parsed(*flags, '--max-abs-reward=3', '--envs-per-actor', '2')
  assert experiment.agent.max_abs_reward == 3.0
  assert experiment.agent.num_epochs == 3  # the preset's
  assert experiment.run.envs_per_actor == 2


def test_presets_can_be_named_or_left_out():
  flags = ('--agent', 'ppo', '--env')
  plain = agents_by_name.agent_module('ppo').Config()
  assert parsed(*flags, 'gymnasium:CartPole-v1').agent == plain
  assert parsed(*flags, 'atari:Pong', '--preset', 'none').agent == plain
  named = parsed(*flags, 'gymnasium:CartPole-v1', '--preset=atari')
  assert named.agent == presets.config('ppo', 'atari:Pong')
  assert named.run.preset == 'atari'


def test_an_unknown_preset_is_answered_with_those_there_are():
  with pytest.raises(
    ValueError,
    match="ppo has no preset 'atary'. Known: auto, none, atari, lunar-lander",
  ):
    parsed('--agent', 'ppo', '--preset', 'atary')


@pytest.mark.parametrize('preset', presets.PRESETS, ids=lambda p: p[:2])
def test_a_preset_reads_as_the_flags_that_it_stands_for(preset):
  flags = '--agent', preset.agent, '--preset', 'none', *str(preset).split()
  experiment = parsed(*flags)
  named = parsed('--agent', preset.agent, '--preset', preset.name)
  assert experiment.agent == named.agent
  assert dataclasses.replace(experiment.run, preset=preset.name) == named.run
