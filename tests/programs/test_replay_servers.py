"""Programs whose replay is several servers."""

import signal
import subprocess

import pytest

from distacme import status as status_lib
from distacme.agents import dqn
from distacme.agents import r2d3
from distacme.programs import checks
from distacme.programs import experiment as experiment_lib
from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.programs.view import bottlenecks
from distacme.programs.view import progress
from distacme.run import run_state
from tests.programs import launching

TWO = ('--num-replay-servers', '2')
SMALL = (
  '--hidden-sizes', '64',
  '--min-replay-size', '300',
  '--eval-period', '100000',
  '--num-actors', '3',
  '--max-seconds', '80',
  *TWO,
)  # fmt: skip


@pytest.fixture(name='start')
def fixture_start(tmp_path):
  """Starts runs in one directory, and kills what a failing test leaves."""
  runs = []

  def start(*flags, **kwargs):
    run = launching.Run(tmp_path / 'run', *SMALL, *flags, **kwargs)
    runs.append(run)
    return run

  yield start
  for run in runs:
    run.__exit__()


def make(**settings):
  return program_lib.make_program(run_config.RunConfig(**settings))


def test_actors_are_divided_among_servers_and_the_learner_needs_all():
  program = make(num_replay_servers=2, num_actors=3)
  needs = {worker.name: worker.needs for worker in program.workers}
  assert needs == {
    'variables/0': (),
    'replay/0': ('variables/0',),
    'replay/1': ('variables/0',),
    'learner/0': ('variables/0', 'replay/0', 'replay/1'),
    'actor/0': ('variables/0', 'replay/0'),
    'actor/1': ('variables/0', 'replay/1'),
    'actor/2': ('variables/0', 'replay/0'),
    'evaluator/0': ('variables/0',),
  }
  # Each waits at the end for those who use it.
  assert program.clients('replay/1') == ['learner/0', 'actor/1']
  added = program_lib.actor(run_config.RunConfig(num_replay_servers=2), 3)
  assert added.needs == ('variables/0', 'replay/1')
  assert program_lib.may_join(program, 'actor/7')
  assert not program_lib.may_join(program, 'replay/2')


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'mode': 'local'}, "mode='local' has none. Leave it out"),
    ({'replay_in_learner': True}, 'there is one. Leave either out'),
    ({'num_actors': 1}, 'more than num_actors=1: nobody would write'),
    ({'num_replay_servers': 0}, 'num_replay_servers must be at least 1'),
  ],
)
def test_servers_without_a_use_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    run_config.RunConfig(**{'num_replay_servers': 2, **settings})


@pytest.mark.parametrize(
  ('agent', 'settings', 'message'),
  [
    (dqn, {'demonstrations': 'some'}, 'demonstrations lie in one server'),
    (r2d3, {}, 'divides one table, and this agent has'),
  ],
)
def test_demonstrations_are_refused(monkeypatch, agent, settings, message):
  # There need be none for that.
  monkeypatch.setattr(checks.demonstrations, 'check_wanted', lambda *_: None)
  run = run_config.RunConfig(
    agent=agent.__name__.rpartition('.')[2],
    env=launching.CATCH,
    num_replay_servers=2,
    **settings,
  )
  with pytest.raises(ValueError, match=message):
    checks.check_agent(experiment_lib.Experiment(run, agent.Config()))


def test_servers_are_shown_as_one_replay():
  state = run_state.RunState(clock=lambda: 0.0)
  serving = status_lib.WorkerState.SERVING
  for name, size, ratio in (('replay/0', 30, 9.0), ('replay/1', 10, 5.0)):
    metrics = {'size': size, 'inserted': size, 'samples_per_insert': ratio}
    state.report(name, {}, metrics, serving)
  state.report('actor/0', {}, {'share_blocked_by_replay': 0.5})
  status = state.status()
  assert progress.progress_line(status).endswith('| replay 40')
  (sentence,) = bottlenecks.who_waits(status)
  assert sentence.endswith('(8 samples per insert so far)')


def replay_of(run):
  """Returns the last metrics of each replay server."""
  rows = [row for row in run.metrics() if row['worker'].startswith('replay/')]
  return {row['worker']: row for row in rows}


def learner_steps(run):
  return max(
    (row['learner_steps'] for row in run.metrics() if 'learner_steps' in row),
    default=0,
  )


@pytest.mark.program
def test_a_run_outlives_a_server_and_a_servers_only_actor_and_goes_on(start):
  run = start('--max-env-steps', '1000000')
  run.wait_until_learning()
  server = run.worker('replay/1')
  server.kill()
  run.wait_for(lambda: run.restarted('replay/1', server))
  run.wait_for(lambda: run.endpoint('replay/1').incarnation == 1)
  before = learner_steps(run)
  run.wait_for(lambda: learner_steps(run) > before + 200)
  # Actor 1 alone writes to replay/1. The learner goes on with what others write.
  scale = [launching.SCRIPT, 'scale', str(run.run_dir), '--num-actors', '1']
  actor = run.worker('actor/1')
  subprocess.run([str(part) for part in scale], timeout=60, check=True)
  run.wait_for(lambda: not launching.alive(actor))
  before = learner_steps(run)
  run.wait_for(lambda: learner_steps(run) > before + 500)
  run.process.send_signal(signal.SIGTERM)
  assert run.wait()[0] == 143, run.output
  assert not run.left_after(0.5)
  assert run.summary.restarts == {'replay/1': ['ended with signal 9']}
  assert not run.summary.failures
  held = {name: row['size'] for name, row in replay_of(run).items()}
  assert held.keys() == {'replay/0', 'replay/1'}
  # What both held is there again, though nobody has acted much.
  steps = run.summary.counts['env_steps']
  resumed = start('--max-env-steps', str(steps + 1000))
  assert resumed.wait()[0] == 0, resumed.output
  for name, row in replay_of(resumed).items():
    assert row['size'] >= held[name] - 100
  # 8 samples an insert, within what either side may run ahead and actors had
  # under way.
  inserted = sum(row['inserted'] for row in replay_of(resumed).values())
  learnt = resumed.summary.counts['learner_steps'] * dqn.Config().batch_size
  ratio = dqn.Config().samples_per_insert
  assert learnt == pytest.approx(ratio * (inserted - 300), rel=0.1)


@pytest.mark.chaos
def test_another_number_of_servers_is_refused_at_a_resume(start):
  run = start('--max-env-steps', '1500', '--mode', 'threads')
  assert run.wait()[0] == 0, run.output
  other = start('--num-replay-servers', '3', '--max-env-steps', '3000')
  assert other.wait()[0] == 2
  assert 'num_replay_servers was 2 and is 3' in other.output
  assert (run.run_dir / 'replay' / 'shard_1_of_2').exists()


@pytest.mark.chaos
@pytest.mark.parametrize(
  ('agent', 'transport'),
  [('impala', 'grpc'), ('ppo', 'grpc'), ('impala', 'reverb')],
)
def test_what_is_used_once_comes_from_all_servers(tmp_path, agent, transport):
  if transport == 'reverb':
    pytest.importorskip('reverb')
  with launching.Run(
    tmp_path / 'run',
    *('--agent', agent, '--max-env-steps', '2000', '--num-actors', '2'),
    *('--replay-transport', transport, *TWO, '--mode', 'threads'),
    *('--eval-period', '100000', '--max-seconds', '60'),
  ) as run:
    assert run.wait()[0] == 0, run.output
    held = replay_of(run)
    assert held.keys() == {'replay/0', 'replay/1'}
    for row in held.values():
      assert row['sampled'] > 0
    assert run.summary.stop.detail == '2000 env_steps'
