"""Relays in a program: which there are, and that actors get their params there."""

import signal

import pytest

from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.variables import client
from tests.programs import launching

SMALL = (
  '--hidden-sizes', '64',
  '--min-replay-size', '300',
  '--eval-period', '4000',
  '--num-relays', '1',
  '--max-seconds', '170',
)  # fmt: skip


def make(acts=True, **settings):
  return program_lib.make_program(run_config.RunConfig(**settings), acts)


@pytest.mark.parametrize(
  ('num_actors', 'num_relays', 'there_are'),
  [
    (1, None, 0),
    (200, None, 0),
    (201, None, 3),
    (1000, None, 10),
    (1000, 0, 0),
    (2, 2, 2),
  ],
)
def test_large_runs_have_relays(num_actors, num_relays, there_are):
  program = make(num_actors=num_actors, num_relays=num_relays)
  relays = [worker for worker in program.workers if worker.kind == 'relay']
  assert len(relays) == there_are
  for relay in relays:
    assert relay.listens and relay.needs == ('variables/0',)
  shares = [len(program.clients(relay.name)) for relay in relays]
  assert not shares or max(shares) - min(shares) <= 1
  assert sum(shares) == (num_actors if there_are else 0)


def test_each_actor_needs_one_relay_and_the_server_also_if_added_later():
  run = run_config.RunConfig(num_actors=4, num_relays=3)
  program = program_lib.make_program(run)
  for index in range(4):
    spec = program[f'actor/{index}']
    assert spec.needs == ('variables/0', 'replay/0', f'relay/{index % 3}')
    assert program_lib.relay_of(spec) == f'relay/{index % 3}'
  assert program_lib.relay_of(program_lib.actor(run, 7)) == 'relay/1'
  for name in ('learner/0', 'evaluator/0'):
    assert program_lib.relay_of(program[name]) is None


def test_beyond_a_hundred_relays_stand_in_a_tree():
  program = make(num_actors=250, num_relays=250)
  above = {
    worker.index: program_lib.relay_of(worker)
    for worker in program.workers
    if worker.kind == 'relay'
  }
  assert {above[index] for index in range(100)} == {None}
  assert {above[index] for index in range(100, 200)} == {'relay/0'}
  assert {above[index] for index in range(200, 250)} == {'relay/1'}


def test_without_actors_there_are_none():
  kinds = {worker.kind for worker in make(acts=False, num_actors=500).workers}
  assert kinds == {'variables', 'learner', 'evaluator'}


@pytest.mark.parametrize(
  ('number', 'said'),
  [(-1, 'num_relays must .*got -1'), (3, 'num_relays=3 is more than num_act')],
)
def test_numbers_that_make_no_sense_are_refused(number, said):
  with pytest.raises(ValueError, match=said):
    run_config.RunConfig(num_relays=number)


def test_more_actors_than_a_server_takes_reports_of_are_refused():
  assert run_config.RunConfig(num_actors=1000).relays == 10
  with pytest.raises(
    ValueError, match='num_actors=1001 is more than 1000, .*--e'
  ):
    run_config.RunConfig(num_actors=1001)


@pytest.mark.program
def test_actors_learn_through_a_relay_that_is_killed(tmp_path):
  with launching.Run(tmp_path / 'run', *SMALL, '--tls') as run:
    run.wait_for(lambda: subscribers(run) == 2)
    run.wait_until_learning()
    first = run.worker('relay/0')
    first.kill()
    run.wait_for(lambda: run.restarted('relay/0', first))
    run.wait_for(lambda: run.endpoint('relay/0').incarnation == 1)
    steps = client.status(run.server).counts['learner_steps']
    # What they act with is newer than the relay's end.
    for actor in ('actor/0', 'actor/1'):
      run.wait_for(lambda: version_of(run, actor) > steps)  # noqa: B023
    run.wait_for(lambda: subscribers(run) == 2)
    with pytest.raises(ConnectionError, match='key|did not answer'):
      client.status(run.endpoint('relay/0')._replace(key=None), timeout_s=1.0)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait()[0] == 143, run.output
    assert not run.left_after(0.5)
    assert run.summary.restarts == {'relay/0': ['ended with signal 9']}
    assert not run.summary.failures
    assert run.summary.workers['relay/0'].state == 'done'


@pytest.mark.chaos
def test_threads_have_relays_too(tmp_path):
  flags = ('--solved-return', '0.9')
  with launching.Run(tmp_path / 'run', *SMALL, *flags, mode='threads') as run:
    run.wait_for(lambda: subscribers(run) == 2)
    assert run.wait()[0] == 0, run.output
    assert run.summary.stop.reason == 'solved'


def subscribers(run):
  """Returns the number of subscribers that the relay reports; None before."""
  if run.server is None:
    return None
  try:
    relay = client.status(run.server).workers.get('relay/0')
  except ConnectionError:
    return None
  return relay and relay.metrics.get('subscribers')


def version_of(run, actor):
  """Returns the version of the params that an actor logged last."""
  rows = [row for row in run.metrics() if row['worker'] == actor]
  rows = [row for row in rows if 'policy_lag' in row]
  return rows[-1]['learner_steps'] - rows[-1]['policy_lag'] if rows else -1
