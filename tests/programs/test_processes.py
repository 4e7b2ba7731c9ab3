"""A run as many processes: it learns, it ends as it should, it leaves nothing."""

import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from distacme import status as status_lib
from distacme.programs import program as program_lib
from distacme.programs import replay_transports
from distacme.programs import run_config
from distacme.programs.workers import main
from distacme.run import curves
from distacme.run import metrics
from distacme.run import run_directory
from distacme.variables import client
from tests.programs import launching

pytestmark = pytest.mark.program

PROGRAM = program_lib.make_program(run_config.RunConfig())
SMALL = (
  '--hidden-sizes', '64',
  '--min-replay-size', '300',
  '--eval-period', '1000',
  '--max-eval-share', '1',
  '--num-actors', '2',
  '--max-seconds', '80',
)  # fmt: skip


@pytest.fixture(name='start')
def fixture_start(tmp_path):
  """Starts runs, and kills what a failing test leaves."""
  runs = []

  def start(*flags, **kwargs):
    run = launching.Run(tmp_path / f'run{len(runs)}', *SMALL, *flags, **kwargs)
    runs.append(run)
    return run

  yield start
  for run in runs:
    run.__exit__()


def listening(processes):
  """Returns (address, port) of every listening socket of `processes`."""
  return {
    (connection.laddr.ip, connection.laddr.port)
    for process in processes
    for connection in process.net_connections('tcp')
    if connection.status == psutil.CONN_LISTEN
  }


@pytest.mark.launchpad
def test_a_run_learns_and_leaves_files_but_no_process_and_so_in_each_mode(
  start, monkeypatch
):
  # Where nobody listens: no worker may ask a proxy for another one.
  for name in ('grpc_proxy', 'https_proxy', 'http_proxy', 'all_proxy'):
    monkeypatch.setenv(name, 'http://127.0.0.1:9')
  flags = ('--solved-return', '0.9', '--envs-per-actor', '2')
  flags += ('--eval-period', '4000')
  run = start(*flags)
  run.wait_until_learning()
  workers = [
    run.worker(name)
    for name in (
      'actor/0',
      'actor/1',
      'evaluator/0',
      'learner/0',
      'replay/0',
      'variables/0',
    )  # fmt: skip
  ]
  assert len({process.pid for process in workers}) == 6
  actors, variables = workers[:2], workers[-1]
  # Courier, which unpickles what a peer sends, listens nowhere.
  assert not listening(actors)
  for address, _ in listening([variables]):
    assert address.removeprefix('::ffff:') == '127.0.0.1'
  # Not localhost, which need not be that.
  assert run.server.address.startswith('127.0.0.1:')
  measured = measured_until_solved(run)
  assert not run.left_after(2)
  assert run.output.count(f'run directory: {run.run_dir}') == 2
  by_reverb = replay_transports.default(tls=False) == 'reverb'
  assert (replay_transports.OPEN_TO_ALL in run.output) == by_reverb
  assert {row['worker'] for row in run.metrics()} == {
    'actor/0', 'actor/1', 'evaluator/0', 'learner/0', 'replay/0',
  }  # fmt: skip
  assert {name for _, name in measured} >= {
    'policy_lag', 'samples_per_insert', 'share_waiting_for_data',
    'share_blocked_by_replay', 'episode_return', 'mean_return', 'loss',
  }  # fmt: skip
  for name in ('config.json', 'best/score.json', 'logs/actor/1', 'tensorboard'):
    assert (run.run_dir / name).exists(), name
  assert any((run.run_dir / 'checkpoints').iterdir())
  for mode in ('threads', 'local'):
    assert measured_until_solved(start(*flags, mode=mode)) == measured, mode


def test_learner_steps_may_decide_evaluations_and_the_end(start):
  run = start(
    *('--clock', 'learner_steps', '--eval-period', '200'),
    *('--max-learner-steps', '700', '--max-env-steps', 'None'),
  )
  code, _ = run.wait()
  assert code == 0, run.output
  assert run.summary.stop.detail == '700 learner_steps'
  assert run.summary.counts['learner_steps'] == 700
  curve = curves.read_curve(run.run_dir)
  assert curve.clock == 'learner_steps'
  assert curve.steps[-1] == 700
  assert 'evaluation: 20 episodes every 200 learner steps' in run.output


def measured_until_solved(run):
  """Waits for a run's end; returns which kind of worker measured what."""
  code, _ = run.wait()
  assert code == 0, run.output
  assert run.summary.stop.reason == 'solved'
  assert run.summary.counts['learner_steps'] > 0
  return {
    (metrics.worker_kind(row['worker']), name)
    for row in run.metrics()
    for name in row
    # The run's counters are in every row from when they first counted.
    if name not in run.summary.counts
  }


@pytest.mark.parametrize(
  'number, code, reason',
  [
    (signal.SIGINT, 130, 'interrupted'),
    pytest.param(
      signal.SIGTERM, 143, 'terminated', marks=pytest.mark.launchpad
    ),
  ],
)
def test_a_signal_ends_the_run_in_order(start, number, code, reason):
  run = start()
  run.wait_until_learning()
  # Ctrl-C reaches every process of the terminal.
  if number == signal.SIGINT:
    for process in run.family():
      process.send_signal(number)
  run.process.send_signal(number)
  got, _ = run.wait()
  assert got == code, run.output
  assert run.summary.stop.reason == reason
  assert any((run.run_dir / 'checkpoints').iterdir())
  assert not run.left_after(0.5)
  assert not run.summary.failures  # nobody had to be killed


_BESIDE = """
from distacme.testing import environments

def jar(seed):
  return environments.catch(seed)
"""
_SCRIPT = """
import node  # which is also a module of Launchpad's, beside its own script
import distacme
from distacme.agents import dqn

def environment(seed):
  import late  # found when it is called
  return late.jar(seed) if seed % 2 else node.jar(seed)

if __name__ == '__main__':
  raise SystemExit(distacme.train(
    dqn.Config(hidden_sizes=(8,), min_replay_size=100), env=environment,
    mode='processes', num_actors=1, run_dir='run',
  ).exit_code)
"""


@pytest.mark.launchpad
def test_workers_import_what_lies_beside_the_script_even_restarted(tmp_path):
  elsewhere = tmp_path / 'elsewhere'
  elsewhere.mkdir()
  for name, text in (('node', _BESIDE), ('late', _BESIDE), ('it', _SCRIPT)):
    (elsewhere / f'{name}.py').write_text(text)
  command = [sys.executable, elsewhere / 'it.py']
  with launching.Run(tmp_path / 'run', command=command) as run:
    run.wait_until_learning()
    first = run.worker('actor/0')
    first.kill()
    run.wait_for(lambda: run.restarted('actor/0', first))
    assert scale(run, 2) == 0
    run.wait_for(lambda: 'actor/1' in acting(run))
    run.process.send_signal(signal.SIGTERM)
    assert run.wait()[0] == 143, run.output
    assert run.summary.restarts == {'actor/0': ['ended with signal 9']}


_ALONE = """
import distacme
from distacme.agents import dqn
from distacme.testing import environments

def main():
  size = 1
  run = distacme.train(
    dqn.Config(hidden_sizes=(8,), min_replay_size=100),
    env=lambda seed: environments.catch(seed * size),
    mode='processes', num_actors=1, tls=True, run_dir='run',
  )
  raise SystemExit(run.exit_code)

if __name__ == '__main__':
  main()
"""


def test_without_launchpad_the_same_program_runs_and_with_a_key(tmp_path):
  elsewhere = tmp_path / 'elsewhere'
  elsewhere.mkdir()
  (elsewhere / 'it.py').write_text(_ALONE)
  (elsewhere / 'launchpad.py').write_text("raise ImportError('none here')")
  command = [sys.executable, elsewhere / 'it.py']
  with launching.Run(tmp_path / 'run', command=command) as run:
    run.wait_until_learning()
    assert 'the env cannot be imported by its name' in run.output
    # Who has no key is nobody.
    first = run.server
    assert first.key == run.run_dir / 'key.pem'
    client.status(first)
    with pytest.raises(ConnectionError):
      client.status(first._replace(key=None), timeout_s=1.0)
    # Nor who has no token.
    assert first.token == run.run_dir / 'token'
    with pytest.raises(ConnectionError, match='lacks the token of the run'):
      client.status(first._replace(token=None))
    # Services are found again, wherever they are.
    assert run.endpoint('replay/0').key == first.key
    for name in ('variables/0', 'replay/0'):
      worker = run.worker(name)
      worker.kill()
      run.wait_for(lambda: run.restarted(name, worker))  # noqa: B023
      run.wait_for(lambda: run.endpoint(name).incarnation == 1)  # noqa: B023
    assert scale(run, 2) == 0
    run.wait_for(lambda: 'actor/1' in acting(run))
    # A worker is one command, whoever gives it.
    directory = run_directory.RunDirectory(run.run_dir)
    actor = program_lib.actor(run_config.RunConfig(), 5)
    program_lib.write(program_lib.read(directory).plus(actor), directory)
    by_hand = subprocess.Popen(main.command(run.run_dir, sys.path, 'actor/5'))
    run.wait_for(lambda: 'actor/5' in acting(run))
    run.process.send_signal(signal.SIGTERM)
    assert run.wait()[0] == 143, run.output
    assert by_hand.wait(20) == 0
    assert not run.left_after(0.5)
    how = ['ended with signal 9']
    assert run.summary.restarts == {'variables/0': how, 'replay/0': how}
    assert not run.summary.failures


def test_without_restarts_a_killed_worker_ends_the_run_and_is_named(start):
  run = start('--max-restarts', '0')
  run.wait_until_learning()
  run.worker('actor/1').kill()
  code, _ = run.wait()
  assert code == 1
  assert 'failed (actor/1)' in run.output
  assert run.output.count('ended with signal 9') == 1
  assert not run.left_after(0.5)


def test_actors_come_and_go_while_the_run_goes_on(start):
  run = start('--max-env-steps', '100000')
  run.wait_until_learning()
  assert scale(run, 4) == 0
  added = [f'actor/{index}' for index in (2, 3)]
  run.wait_for(lambda: acting(run).issuperset(added))
  first = run.worker('actor/1')
  assert scale(run, 1) == 0
  run.wait_for(lambda: not launching.alive(first))
  run.wait_for(lambda: len(run.family()) == 5)
  run.worker('actor/0')
  assert scale(run, 2) == 0
  run.wait_for(lambda: run.restarted('actor/1', first))
  run.process.send_signal(signal.SIGTERM)
  code, _ = run.wait()
  assert code == 143, run.output
  assert not run.left_after(0.5)
  assert not run.summary.restarts
  assert not run.summary.failures


def scale(run, num_actors):
  """Runs `distacme scale`; returns its exit code."""
  command = [launching.SCRIPT, 'scale', run.run_dir]
  command += ['--num-actors', str(num_actors)]
  return subprocess.run([str(part) for part in command], timeout=60).returncode


def acting(run):
  """Returns the workers that have logged that they acted."""
  return {row['worker'] for row in run.metrics() if 'policy_lag' in row}


@pytest.mark.launchpad
def test_learner_and_replay_share_a_process_and_end_in_order(start):
  run = start('--replay-in-learner', '--solved-return', '0.9')
  run.wait_until_learning()
  learner = run.worker('learner/0')
  with pytest.raises(LookupError):
    run.worker('replay/0')
  assert listening([learner])  # it serves the actors
  code, _ = run.wait()
  assert code == 0, run.output
  assert not run.left_after(0.5)
  assert run.summary.stop.reason == 'solved'
  assert not run.summary.failures
  assert run.summary.workers['replay/0'].state == 'done'
  (last,) = [r for r in run.metrics() if r['worker'] == 'replay/0'][-1:]
  assert last['sampled'] > 0
  # Its clients were done when the server went.
  for name in ('learner/0', 'actor/0', 'actor/1'):
    assert 'Traceback' not in (run.run_dir / 'logs' / name).read_text()


@pytest.mark.chaos
def test_a_signal_ends_a_learner_beside_replay_in_order(start):
  run = start('--replay-in-learner')
  run.wait_until_learning()
  for process in run.family():
    process.send_signal(signal.SIGINT)
  run.process.send_signal(signal.SIGINT)
  code, _ = run.wait()
  assert code == 130, run.output
  assert any((run.run_dir / 'checkpoints').iterdir())
  assert not run.left_after(0.5)
  assert not run.summary.failures


@pytest.mark.chaos
def test_a_killed_learner_and_the_replay_beside_it_are_restarted(start):
  run = start('--replay-in-learner', '--max-env-steps', '4000')
  run.wait_until_learning()
  learner = run.worker('learner/0')
  learner.kill()
  run.wait_for(lambda: run.restarted('learner/0', learner))
  code, _ = run.wait()
  assert code == 0, run.output
  assert run.summary.restarts == {'learner/0': ['ended with signal 9']}
  assert not run.left_after(0.5)


@pytest.mark.chaos
def test_an_evaluator_of_slow_environments_lives_and_ends_with_the_run(start):
  # A step of its 20 rows takes 1.6 s, an episode 16 s.
  run = start(
    *('--min-replay-size', '20', '--batch-size', '16', '--eval-period', '40'),
    *('--max-seconds', '400'),
    env='broken_environments:slow',
  )

  def evaluator():
    status = client.status(run.server, timeout_s=20.0)
    return status.workers.get('evaluator/0', status_lib.WorkerStatus())

  run.wait_for(run.metrics, 300)  # the server of variables is there
  run.wait_for(lambda: 'mean_return' in evaluator().metrics, 300)
  run.wait_for(lambda: evaluator().state == 'evaluating', 300)
  run.process.send_signal(signal.SIGTERM)
  code, _ = run.wait()
  assert code == 143, run.output
  assert not run.summary.failures  # nor was it killed for not ending
  assert not run.summary.restarts


@pytest.mark.launchpad
def test_who_is_terminated_alone_is_started_again(start):
  run = start('--max-env-steps', '6000')
  run.wait_until_learning()
  names = ('actor/1', 'evaluator/0', 'learner/0', 'replay/0')
  workers = {name: run.worker(name) for name in names}
  for worker in workers.values():
    worker.terminate()
  for name, worker in workers.items():
    run.wait_for(lambda: run.restarted(name, worker))  # noqa: B023
  code, _ = run.wait()
  assert code == 0, run.output
  how = ['ended although the run goes on']
  assert run.summary.restarts == dict.fromkeys(names, how)


def test_an_environment_that_hangs_is_found_out_and_the_run_goes_on(
  start, tmp_path, monkeypatch
):
  hang = tmp_path / 'hang'
  monkeypatch.setenv('HANG', str(hang))
  run = start('--hang-timeout-s', '10', env='broken_environments:hung_once')
  run.wait_until_learning()  # one that is starting may take longer
  hang.touch()
  run.wait_for(lambda: not hang.exists())
  actors = {f'actor/{index}': run.worker(f'actor/{index}') for index in (0, 1)}
  run.wait_for(lambda: any(run.restarted(*actor) for actor in actors.items()))
  run.process.send_signal(signal.SIGTERM)
  assert run.wait()[0] == 143, run.output
  ((name, hows),) = run.summary.restarts.items()
  assert name in actors
  assert hows == ['gave no sign of life for 10 s and was killed']
  log = (run.run_dir / 'logs' / name).read_text()
  assert 'in wait_for_what_never_comes' in log


@pytest.mark.parametrize(
  'hung', ['actor/0', pytest.param('variables/0', marks=pytest.mark.chaos)]
)
def test_a_terminated_run_does_not_wait_for_who_hangs(start, hung):
  run = start()
  run.wait_until_learning()
  run.worker(hung).suspend()
  run.process.send_signal(signal.SIGTERM)
  code, seconds = run.wait()
  assert code == 143, run.output
  assert seconds < 40.0  # 9 on an idle machine; after Ctrl-C it would be 60
  assert f'{hung} on' in run.output
  assert any((run.run_dir / 'checkpoints').iterdir())
  assert not run.left_after(0.5)


def test_what_is_left_is_found_though_nobody_looked_before(start):
  """Else the tests that find nothing left would prove nothing."""
  run = start(env='broken_environments:helped', mode='local')
  run.wait_until_learning()
  run.process.kill()  # who has no time to end what the environment started
  run.process.wait()
  assert {process.name() for process in run.left_after(0.5)} == {'sleep'}


@pytest.mark.launchpad
def test_no_worker_outlives_a_killed_launcher(start):
  run = start()
  run.wait_until_learning()
  run.process.kill()
  assert not run.left_after(10)


def test_an_environment_that_keeps_failing_ends_the_run_with_its_traceback(
  start,
):
  run = start('--max-restarts', '1', env='broken_environments:jammed')
  code, _ = run.wait()
  assert code == 1
  # The first is shown once, the others are counted.
  assert run.output.count('RuntimeError: the door is jammed') == 1
  assert 'its log is' in run.output
  assert 'failed (actor/' in run.output
  (hows,) = {*map(tuple, run.summary.restarts.values())}
  assert hows == ('ended with exit code 1',)
  assert not run.left_after(0.5)


def test_what_environments_start_does_not_outlive_the_run(start):
  run = start(env='broken_environments:helped')
  run.wait_until_learning()
  helpers = [p for p in run.family() if p.name() == 'sleep']
  assert len(helpers) >= 2  # each actor's
  actor = run.worker('actor/0')
  actor.kill()  # which has no time to end its own
  run.wait_for(lambda: run.restarted('actor/0', actor))
  assert all(launching.alive(helper) for helper in helpers)
  run.process.send_signal(signal.SIGTERM)
  assert run.wait()[0] == 143, run.output
  assert not run.left_after(0.5)
  assert not any(launching.alive(helper) for helper in helpers)


def test_a_broken_spec_ends_the_run_with_what_was_promised_and_what_came(start):
  run = start(env='broken_environments:too_bright')
  code, _ = run.wait()
  assert code == 1
  sentence = (
    'observation must be in [0.0, 1.0], got 7.0 at index [0, 4] in row 0.'
  )
  assert run.output.count(f'breaks its own spec: {sentence}') == 1
  assert 'failed (actor/' in run.output
  assert not run.left_after(0.5)


@pytest.mark.parametrize(
  'exponent', ['0.6', pytest.param('0', marks=pytest.mark.chaos)]
)
def test_rewards_that_are_no_number_end_the_run_and_say_so(start, exponent):
  run = start(
    *('--priority-exponent', exponent, '--max-restarts', '0'),
    env='broken_environments:not_a_number',
  )
  code, _ = run.wait()
  assert code == 1
  assert 'finite' in run.output


def test_a_failure_after_the_stop_is_not_called_a_success(start):
  run = start('--max-env-steps', '1000')
  run.wait_for(lambda: (run.run_dir / 'checkpoints').exists())
  (run.run_dir / 'checkpoints').chmod(0o000)
  shutil.rmtree(run.run_dir / 'checkpoints')
  (run.run_dir / 'checkpoints').write_text('no directory')
  code, _ = run.wait()
  assert code == 1, run.output
  assert 'learner/0' in run.output.rpartition('ended: ')[2]


@pytest.mark.chaos
def test_several_updates_in_one_call_hold_the_replay_ratio(start):
  run = start('--updates-per-call', '4', '--max-env-steps', '4000')
  code, _ = run.wait()
  assert code == 0, run.output
  steps = run.summary.counts['learner_steps']
  assert steps > 100
  assert steps % 4 == 0
  replay = run.summary.workers['replay/0'].metrics
  # 32 samples for each insert, give or take the error buffer of 960.
  inserts = replay['inserted'] - 300
  assert abs(replay['sampled'] - 32 * inserts) <= 960 + 32 * 40


@pytest.mark.chaos
def test_threads_run_with_replay_in_the_learner(start):
  flags = ('--solved-return', '0.9', '--replay-in-learner')
  assert measured_until_solved(start(*flags, mode='threads'))


def test_the_three_modes_make_the_same_params_and_act_alike(start):
  # Nothing is learnt, so that no mode's timing decides; half of the evaluated
  # actions are random, so that equal returns mean equal keys, seeds and params.
  scores = {}
  for mode in ('local', 'threads', 'processes'):
    run = start(
      *('--max-env-steps', '300', '--min-replay-size', '100000'),
      *('--num-actors', '1', '--evaluation-epsilon', '0.5'),
      *('--eval-episodes', '40', '--seed', '3'),
      mode=mode,
    )
    assert run.wait()[0] == 0, run.output
    (row,) = [r for r in run.metrics() if r['worker'] == 'evaluator/0']
    assert row['params_version'] == 0
    scores[mode] = row['mean_return'], row['mean_length']
  assert scores['local'] == scores['threads'] == scores['processes']
  assert -1.0 < scores['local'][0] < 1.0


@pytest.mark.launchpad
def test_stopping_while_workers_start_leaves_nothing(start):
  run = start()
  run.wait_for(lambda: len(run.family()) >= 6)
  run.process.send_signal(signal.SIGINT)
  code, seconds = run.wait()
  assert code == 130, run.output
  assert not run.left_after(0.5)
  assert seconds < 50.0  # workers finish their imports, and nobody waits for 60


@pytest.mark.launchpad
def test_a_launcher_that_is_killed_at_once_leaves_nothing(start):
  run = start()
  run.wait_for(lambda: len(run.family()) >= 6)
  run.process.kill()
  run.process.wait()
  # Nobody has told them yet that they want to know; they import first.
  assert not run.left_after(30)


def test_the_first_traceback_is_shown_whatever_was_before_it(tmp_path):
  from distacme.programs.launchers import supervised_run
  from distacme.runtime import supervision

  def worker(name, code):
    return supervision.Worker(
      name, *(lambda: code, print, print, print), log=None, restart=print
    )

  seen = []
  run = supervised_run.SupervisedRun(
    program_lib.make_program(run_config.RunConfig(replay_in_learner=True)),
    run_directory.RunDirectory(tmp_path),
    seen.append,
  )
  run._status = counting_status()
  run.on_restart(worker('evaluator/0', -9), 'ended with signal 9', 0.5)
  run.on_restart(worker('actor/0', 1), 'ended with exit code 1', 0.5)
  run.on_restart(worker('actor/0', 1), 'ended with exit code 1', 1.0)
  run.on_failure(worker('learner/0', 1), 'ended with exit code 1')
  shown = run.finish().shown_failures
  assert [text.partition(' on ')[0] for text in shown] == [
    'evaluator/0', 'actor/0', 'learner/0',
  ]  # fmt: skip
  assert 'Traceback of actor/0' in shown[1]
  # Of who lives in its process, and it ends the run: so it is shown, too.
  assert 'Traceback of replay/0' in shown[2]


def counting_status():
  from distacme.run import run_state

  state = run_state.RunState()
  for name in ('actor/0', 'replay/0'):
    state.fail(name, f'Traceback of {name}')
  return state.status()


def test_a_stop_while_processes_are_made_reaches_them_all(tmp_path):
  from distacme.programs.launchers import supervised_run
  from distacme.runtime import supervision

  stopped = []
  members = [
    supervision.Worker(
      name,
      exit_code=lambda: None,
      terminate=lambda name=name: stopped.append(name),
      kill=lambda: None,
      explain=lambda: None,
      log=None,
      restart=None,
    )
    for name in ('actor/0', 'learner/0')
  ]
  directory = run_directory.RunDirectory(tmp_path)
  watch = supervised_run.SupervisedRun(PROGRAM, directory, lambda status: None)
  watch.request_stop(status_lib.StopReason.INTERRUPTED)
  assert watch.stopping()
  watch.attach(members)  # of which none is a server yet
  assert stopped == ['actor/0', 'learner/0']
  failed = status_lib.StopReason.FAILED
  watch.request_stop(failed, 'ended with signal 15', 'actor/0')
  assert watch.finish().stop.reason == 'interrupted'
