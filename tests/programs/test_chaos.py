"""Workers are killed one after another, and the run comes to its end all the same.

`make chaos` does so for longer, by a random schedule: it prints the seed and a report of
what was lost. ARGS='--chaos-rounds 20 --chaos-seed 7' makes it longer, and the same as
before. It also kills everything at once, and watches what the workers take of memory
and descriptors.
"""

import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import time

import numpy as np
import psutil
import pytest

from distacme.run import curves
from distacme.run import files
from distacme.run import run_directory
from tests.programs import chaos
from tests.programs import launching

pytestmark = pytest.mark.program

# After as many rounds the run is ended and resumed: a worker waits longer before each
# restart, and may be restarted so often within ten minutes.
ROUNDS_A_RUN = 3


def scores(run, since):
  """Returns the mean returns of evaluations since then."""
  return [
    row['mean_return']
    for row in run.metrics()
    if 'mean_return' in row and row['time'] > since
  ]


def ports(processes):
  """Returns the ports that processes listen on."""
  return {
    connection.laddr.port
    for process in processes
    for connection in process.net_connections('tcp')
    if connection.status == psutil.CONN_LISTEN
  }


@pytest.mark.launchpad
def test_a_run_survives_whatever_is_killed(tmp_path):
  # Who hangs is in test_processes.py, and would be waited for here.
  survive(tmp_path / 'run', rounds=1, seed=0, hang=False)


@pytest.mark.chaos
def test_a_run_survives_a_random_schedule(tmp_path, pytestconfig, capsys):
  rounds = pytestconfig.getoption('--chaos-rounds')
  seed = pytestconfig.getoption('--chaos-seed')
  if seed is None:
    seed = random.SystemRandom().randrange(10**6)
  with capsys.disabled():
    print(f'\n--chaos-rounds {rounds} --chaos-seed {seed}')
  report = survive(tmp_path / 'run', rounds, seed)
  with capsys.disabled():
    print(report.as_json())


def survive(run_dir, rounds, seed, hang=True):
  """Runs and resumes a run until it has lived through all rounds of faults."""
  chance = random.Random(seed)
  report = chaos.Report(seed, rounds)
  for first in range(0, rounds, ROUNDS_A_RUN):
    count = min(ROUNDS_A_RUN, rounds - first)
    flags = (*chaos.FLAGS, '--max-restarts', f'{count + 1}')
    with launching.Run(run_dir, *flags) as run:
      resumed_at = time.time()
      run.wait_for(lambda: learning_since(run, resumed_at))  # noqa: B023
      counters = chaos.Counters(run)
      for _ in range(count):
        chaos.fault_each_in_turn(run, counters, chance, report, hang)
      listened = ports(run.family())
      reached = counters.look()
      run.process.send_signal(signal.SIGTERM)
      code, seconds = run.wait()
      assert code == 143, run.output
      assert seconds < 30.0  # 10 on a machine that does nothing else
      assert not run.left_after(1)
    restarts = run.summary.restarts
    if hang:
      assert restarts.pop('actor/0') == [chaos.HUNG] * count
    assert set(restarts) == set(chaos.KILLED)
    assert all(len(hows) == count for hows in restarts.values())
  target = reached['env_steps'] + 15_000
  flags = (*flags, '--max-env-steps', f'{target}')
  resumed_at = time.time()
  with launching.Run(run_dir, *flags) as resumed:
    code, _ = resumed.wait(240)
    assert code == 0, resumed.output
    assert not resumed.left_after(1)
    counts = resumed.summary.counts
  assert counts['env_steps'] >= target
  assert counts['learner_steps'] > reached['learner_steps']
  assert not resumed.summary.failures
  assert chaos.sizes_of_replay(resumed, resumed_at)[0] >= chaos.MIN_SIZE
  # Not the best of the run, which may be from before all this.
  assert max(scores(resumed, resumed_at)) >= 0.9
  left = {
    connection.laddr.port
    for connection in psutil.net_connections('tcp')
    if connection.status == psutil.CONN_LISTEN
  }
  assert not listened & left
  return report


def learning_since(run, since):
  """Says whether the learner has made steps since then."""
  return any(
    row['worker'] == 'learner/0'
    and row['learner_steps']
    and row['time'] > since
    for row in run.metrics()
  )


@pytest.mark.chaos
def test_everything_is_killed_again_and_again(tmp_path, capsys):
  run_dir = tmp_path / 'run'
  directory = run_directory.RunDirectory(run_dir)
  lost, best = [], -1.0
  for number in range(5):
    saved_step = directory.last_step() or 0
    saved = directory.read_counts(saved_step) if saved_step else {}
    with launching.Run(run_dir, *chaos.FLAGS) as run:
      resumed_at = time.time()
      run.wait_for(lambda: learning_since(run, resumed_at))  # noqa: B023
      counters = chaos.Counters(run)
      counts = counters.begin()
      for name, least in saved.items():
        assert counts.get(name, 0) >= least, (name, counts, saved)
      counters.wait_for_progress(3000)
      run.wait_for(lambda: (directory.last_step() or 0) > saved_step)  # noqa: B023
      reached = counters.begin()
      chaos.kill_everything(run)
    kept = directory.read_counts(directory.last_step())
    lost.append({n: reached[n] - kept.get(n, 0) for n in reached})
    if (directory.best / 'score.json').exists():
      score = files.read_json(directory.best / 'score.json')['mean_return']
      assert score >= best
      best = score
    assert number == 0 or saved
  target = reached['env_steps'] + 5000
  flags = (*chaos.FLAGS, '--max-env-steps', f'{target}')
  with launching.Run(run_dir, *flags) as run:
    assert run.wait(240)[0] == 0, run.output
  with capsys.disabled():
    print(f'\nlost by each kill of everything: {json.dumps(lost)}')
  curve = curves.read_curve(run_dir)
  # Evaluations are due every 2,000 steps, and made when the evaluator is free.
  assert np.diff(curve.steps).min() > 0
  assert np.diff([0, *curve.steps]).max() < 12_000, curve.steps
  assert curve.steps[-1] >= target
  assert files.read_json(directory.best / 'score.json')['mean_return'] >= best


@pytest.mark.chaos
def test_a_worker_that_hangs_does_not_outlive_a_killed_launcher(
  tmp_path, monkeypatch
):
  hang = tmp_path / 'hang'
  hang.touch()
  monkeypatch.setenv('HANG', str(hang))
  with launching.Run(
    tmp_path / 'run', *chaos.FLAGS, env='broken_environments:hung_once'
  ) as run:
    run.wait_for(lambda: not hang.exists())
    assert len(run.family()) == 7
    run.process.kill()
    assert not run.left_after(25)


@pytest.mark.chaos
def test_memory_and_descriptors_stay_flat_over_a_million_inserts(tmp_path):
  flags = (
    *('--hidden-sizes', '32', '--num-actors', '2', '--envs-per-actor', '32'),
    *('--block-size', '32', '--priority-exponent', '0'),
    *('--samples-per-insert', '1', '--max-replay-size', '50000'),
    *('--max-env-steps', '1300000', '--eval-period', '100000'),
  )
  with launching.Run(tmp_path / 'run', *flags) as run:
    run.wait_until_learning()
    counters = chaos.Counters(run)
    # Until replay is full, and everything has been done once.
    counters.wait_for(lambda counts: counts['env_steps'] >= 250_000, 900)
    names = ('actor/0', 'actor/1', 'learner/0', 'replay/0', 'variables/0')
    workers = {name: run.worker(name) for name in (*names, 'evaluator/0')}
    workers['launcher'] = psutil.Process(run.process.pid)
    before = {n: taken(worker) for n, worker in workers.items()}
    counters.wait_for(lambda counts: counts['env_steps'] >= 1_250_000, 900)
    after = {n: taken(worker) for n, worker in workers.items()}
    code, _ = run.wait()
    assert code == 0, run.output
  grown_mb = {n: (after[n][0] - before[n][0]) / 1e6 for n in workers}
  # A leak of 32 bytes in each insert would be 32 MB.
  assert max(grown_mb.values()) < 25, grown_mb
  opened = {n: after[n][1] - before[n][1] for n in workers}
  # A checkpoint may be under way, which opens some.
  assert max(opened.values()) < 20, opened


def taken(process):
  """Returns the bytes and the descriptors that a process has."""
  return process.memory_info().rss, process.num_fds()


@pytest.mark.chaos
def test_many_actors_on_few_cores_start_act_and_end(tmp_path, capsys):
  actors = 32
  flags = ('--hidden-sizes', '32', '--min-replay-size', '300')
  flags += ('--num-actors', f'{actors}', '--max-env-steps', 'None')
  with launching.Run(tmp_path / 'run', *flags) as run:
    start = time.monotonic()

    def all_act():
      rows = run.metrics()
      acting = {row['worker'] for row in rows if 'policy_lag' in row}
      return len(acting) == actors

    run.wait_for(all_act, 600)
    seconds = time.monotonic() - start
    counters = chaos.Counters(run)
    counters.wait_for_progress(1000)
    workers = [run.worker(f'actor/{index}') for index in range(actors)]
    memory_mb = (
      statistics.median(w.memory_full_info().pss for w in workers) / 1e6
    )
    stopped = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    code, _ = run.wait()
    assert code == 143, run.output
    ended_s = time.monotonic() - stopped
    assert not run.left_after(1)
    assert not run.summary.restarts
  with capsys.disabled():
    print(
      f'\n{actors} actors on {os.cpu_count()} cores: all act after {seconds:.0f} '
      f's, {memory_mb:.0f} MB each, gone {ended_s:.1f} s after SIGTERM'
    )
  assert memory_mb < 150
  assert ended_s < 12


@pytest.mark.chaos
def test_params_of_200_mb_reach_four_actors(tmp_path, capsys):
  # 7,000 x 7,000 weights.
  flags = ('--hidden-sizes', '7000', '7000', '--min-replay-size', '100')
  flags += (
    '--batch-size',
    '8',
    '--num-actors',
    '4',
    '--samples-per-insert',
    '1',
  )
  flags += ('--max-env-steps', 'None', '--checkpoint-period-s', '1000')
  with launching.Run(tmp_path / 'run', *flags) as run:

    def versions():
      return {
        row['worker']: (row['params_version'], row['policy_lag'])
        for row in run.metrics()
        if 'policy_lag' in row
      }

    def all_have_news():
      found = versions().values()
      return len(found) == 4 and min(version for version, _ in found) > 0

    run.wait_for(all_have_news, 600)
    names = ('learner/0', 'variables/0', 'actor/0', 'actor/3', 'evaluator/0')
    memory_mb = {
      name: round(run.worker(name).memory_info().rss / 1e6) for name in names
    }
    lags = [lag for _, lag in versions().values()]
    run.process.send_signal(signal.SIGTERM)
    code, _ = run.wait()
    assert code == 143, run.output
    assert not run.summary.restarts
  with capsys.disabled():
    print(f'\nparams of 200 MB: policy lag {lags}, memory in MB {memory_mb}')
  # The params themselves, those that come, and what a process has besides.
  assert memory_mb['variables/0'] < 1000
  assert max(memory_mb[f'actor/{index}'] for index in (0, 3)) < 1200


@pytest.mark.chaos
@pytest.mark.parametrize('mode', ['local', 'processes'])
def test_64_descriptors_are_enough_and_fewer_are_refused(mode, tmp_path):
  command = [launching.SCRIPT, 'train', '--env', launching.CATCH]
  command += ['--mode', mode, '--hidden-sizes', '8', '--min-replay-size', '100']
  command += ['--max-env-steps', '1500', '--num-actors', '2']
  for limit, code in ((30, 2), (64, 0)):
    run_dir = tmp_path / f'run{limit}'
    limited = ['sh', '-c', f'ulimit -n {limit} && exec "$@"', 'sh']
    all_ = [*limited, *command, '--run-dir', run_dir]
    with launching.Run(run_dir, command=all_) as run:
      assert run.wait()[0] == code, run.output
      if code:
        assert 'a process may open 30 files here' in run.output
        assert 'ulimit -n 1024' in run.output
      else:
        assert not run.summary.failures
        assert not run.summary.restarts


@pytest.mark.chaos
def test_a_small_dev_shm_is_not_used(tmp_path):
  flags = ['--hidden-sizes', '8', '--min-replay-size', '100', '--max-env-steps']
  flags += ['3000', '--num-actors', '1', '--mode', 'processes']
  train = [launching.SCRIPT, 'train', '--env', launching.CATCH, *flags]
  inner = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
  command = ['unshare', '-m', 'sh', '-c', inner, 'sh', *train]
  if subprocess.run(['unshare', '-m', 'true'], capture_output=True).returncode:
    pytest.skip('no file system can be mounted here')
  run_dir = tmp_path / 'run'
  with launching.Run(run_dir, command=[*command, '--run-dir', run_dir]) as run:
    assert run.wait()[0] == 0, run.output
    assert not run.summary.restarts


@pytest.mark.chaos
def test_a_run_goes_on_with_another_python(tmp_path):
  root = pathlib.Path(__file__).parents[2]
  pythons = [
    root / folder / 'bin/distacme' for folder in ('.venv', '.venv-core')
  ]
  if not all(path.exists() for path in pythons):
    pytest.skip("two Pythons are needed: 'make .venv-core/.installed'")
  flags = ['--env', launching.CATCH, '--hidden-sizes', '8', '--num-actors', '1']
  flags += ['--min-replay-size', '100', '--run-dir', tmp_path / 'run']
  inserted = steps = 0
  for number, mode in enumerate(('local', 'local', 'processes', 'processes')):
    command = [pythons[number % 2], 'train', '--mode', mode, *flags]
    command += ['--max-env-steps', f'{1500 * (number + 1)}']
    with launching.Run(tmp_path / 'run', command=command) as run:
      assert run.wait()[0] == 0, run.output
    assert run.output.count('cannot') == 0
    replay = run.summary.workers['replay/0'].metrics
    assert replay['inserted'] > inserted
    assert run.summary.counts['learner_steps'] > steps
    inserted = replay['inserted']
    steps = run.summary.counts['learner_steps']
