"""Plays, searches meanwhile, and compares with a twin that never searched."""

from __future__ import annotations

import numpy as np
import tree

from distacme.environments import simulators

from . import contract


def flat(timestep):
  """Returns a timestep as types, shapes and bytes."""
  return [
    (np.asarray(leaf).dtype, np.shape(leaf), np.asarray(leaf).tobytes())
    for leaf in tree.flatten(timestep)
    if leaf is not None
  ]


def play(simulator, actions):
  """Returns what a simulator answers to actions."""
  return [flat(simulator.step(action)) for action in actions]


def check(make, num_steps=150, depth=25, as_simulator=simulators.as_simulator):
  """Asserts that an environment that is searched goes on like one that is not.

  Returns how many episodes ended in play, and how many in searches.

  Args:
    make: returns an environment, the same one in every call.
    num_steps: of play.
    depth: most steps of a search from one saved state.
    as_simulator: makes the simulator.
  """
  random = np.random.default_rng(0)
  searched, twin = make(), make()
  spec = searched.action_spec()
  assert flat(searched.reset()) == flat(twin.reset())
  simulator = as_simulator(searched)
  ends = {'play': 0, 'search': 0}
  old = []

  def actions():
    number = random.integers(1, depth + 1)
    return [contract.random_action(random, spec) for _ in range(number)]

  def wander():
    for action in actions():
      ends['search'] += simulator.step(action).last()

  for step in range(num_steps):
    if random.random() < 0.2:
      root = simulator.save()
      wander()
      inner, inner_actions = simulator.save(), actions()
      answers = play(simulator, inner_actions)
      simulator.restore(root, seed=step)
      wander()
      simulator.restore(inner)
      assert play(simulator, inner_actions) == answers
      simulator.restore(root, seed=step + 1)
      wander()
      simulator.restore(root)
      old.append((inner, inner_actions, answers))
    action = contract.random_action(random, spec)
    timestep = searched.step(action)
    ends['play'] += timestep.last()
    assert flat(timestep) == flat(twin.step(action)), step
  now = simulator.save()
  for inner, inner_actions, answers in old * 2:
    simulator.restore(inner)
    assert play(simulator, inner_actions) == answers
  simulator.restore(now)
  for action in actions():
    assert flat(searched.step(action)) == flat(twin.step(action))
  searched.close()
  twin.close()
  return ends['play'], ends['search']
