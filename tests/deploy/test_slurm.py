"""Runs on a real Slurm cluster of several nodes on this host."""

import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from distacme.deploy import records
from distacme.run import metrics as metrics_lib
from distacme.run import run_directory
from tests.deploy import slurm_cluster
from tests.deploy.slurm_cluster import wait_for

SCRIPT = pathlib.Path(sys.executable).with_name('distacme')
CATCH = 'distacme.testing.environments:catch'
SMALL = """
max_requeues = 2
[variables]
memory = "500M"
[replay]
cpus = 1
memory = "500M"
[learner]
cpus = 1
memory = "800M"
[actor]
memory = "500M"
[evaluator]
memory = "500M"
[slurm]
time = "01:00:00"

"""


@pytest.fixture(scope='module', name='cluster')
def fixture_cluster():
  yield from slurm_cluster.started(3, cpus=6)


class Run:
  """A run that was submitted; what is left of it ends with the test."""

  def __init__(self, cluster, name, *flags, toml=SMALL, env=CATCH, agent='dqn'):
    self.cluster = cluster
    self.directory = run_directory.RunDirectory(cluster.shared / name)
    self._toml = cluster.shared / f'{name}.toml'
    self.write_cluster(toml)
    self._flags = ['--agent', agent, '--env', env, '--mode', 'slurm', *flags]
    self._flags += ['--cluster', str(self._toml)]

  def write_cluster(self, toml):
    self._toml.write_text(toml)

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    for path in (self.directory.path, *self.directory.path.glob('seed*')):
      self.cluster.cancel(records.jobs(run_directory.RunDirectory(path)))
    if exception[0] is not None:
      print(self.logs())
    wait_for(lambda: not self.left(), 60, 'processes on nodes')

  def distacme(self, *arguments, code=0, **settings):
    done = subprocess.run(
      [str(SCRIPT), *map(str, arguments)],
      capture_output=True,
      text=True,
      check=False,
      cwd=self.cluster.shared,
      env={
        **os.environ,
        **self.cluster.environment,
        'PYTHONPATH': str(self.cluster.shared),
        'PYTHONSAFEPATH': '',
      },
      **settings,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr

  def submit(self, *flags, code=0, **settings):
    return self.distacme(
      *('train', '--run-dir', self.directory.path, *self._flags, *flags),
      code=code,
      **settings,
    )

  def wait(self, timeout_s=240):
    """Waits for the end; returns the summary."""
    wait_for(self.directory.read_summary, timeout_s, self.logs)
    jobs = records.jobs(self.directory)
    wait_for(lambda: not self.states(jobs), 60, 'jobs that end')
    return self.directory.read_summary()

  def states(self, jobs=None):
    jobs = jobs or records.jobs(self.directory)
    found = self.cluster.command(
      'squeue', '-h', '-r', '-t', 'all', '-j', ','.join(jobs), '-o', '%i %T'
    )
    ended = ('COMPLETED', 'CANCELLED', 'FAILED', 'TIMEOUT', 'NODE_FAIL')
    return [line for line in found.splitlines() if line.split()[1] not in ended]

  def place(self, worker):
    return records.read_place(self.directory, worker)

  def node(self, worker):
    return self.cluster.nodes[self.place(worker).host]

  def rows(self, worker=''):
    path = self.directory.path / metrics_lib.METRICS_FILE
    if not path.exists():
      return []
    rows = metrics_lib.read_metrics(path)
    return [row for row in rows if row['worker'].startswith(worker)]

  def steps(self, counter='learner_steps'):
    return max((row.get(counter, 0) for row in self.rows()), default=0)

  def learns(self, timeout_s=120):
    """Waits until the learner makes steps, more than before."""
    before = self.steps()
    wait_for(lambda: self.steps() > before + 20, timeout_s, self.logs)

  def goes_on_from(self, saved, since):
    """Waits until the learner learns again; checks from which step it does.

    Args:
      saved: step of the checkpoint.
      since: time of the learner's new start.
    """

    def steps():
      rows = [row for row in self.rows('learner') if row['time'] > since]
      return [row['learner_steps'] for row in rows]

    wait_for(lambda: max(steps(), default=0) > saved + 20, 120, self.logs)
    # As it began, it would count from 0.
    assert min(steps()) >= saved

  def acts(self, worker, since, timeout_s=120):
    """Waits until an actor has worked after a time."""

    def acted():
      return any(row['time'] > since for row in self.rows(worker))

    wait_for(acted, timeout_s, self.logs)

  def left(self):
    """Returns the processes of the run on all nodes."""
    found = {}
    for name, node in self.cluster.nodes.items():
      for pid, command in node.processes(str(self.directory.path)).items():
        found[pid] = f'{name}: {command[:200]}'
    return found

  def logs(self):
    text = []
    for path in sorted(self.directory.logs.rglob('*')):
      if path.is_file():
        text.append(f'==> {path} <==\n{path.read_text()[-3000:]}')
    return '\n'.join(text)


@pytest.fixture(name='run')
def fixture_run(cluster, request):
  with Run(cluster, re.sub(r'\W', '-', request.node.name)) as run:
    yield run


LONG = ('--num-actors', '3', '--max-env-steps', '100000000')
LONG += ('--checkpoint-period-s', '2', '--eval-period', '100000')
LONG += ('--replay-checkpoint-period-s', '5')


@pytest.mark.program
def test_a_run_on_three_nodes_reaches_its_end(run):
  output = run.submit(
    *('--num-actors', '3', '--max-env-steps', '3000', '--eval-period', '1000')
  )
  assert 'submitted: job' in output
  summary = run.wait()
  assert summary.stop.reason == 'step_limit'
  assert not summary.failures
  hosts = {place.host for place in records.every_place(run.directory)}
  assert len(hosts) > 1, 'all workers were on one node'
  assert not run.left()
  assert 'step_limit' in run.distacme('status', run.directory.path)
  assert run.directory.read_running() is None


@pytest.mark.program
def test_jobs_that_the_cluster_cannot_take_are_refused(run):
  for before, after, *words in [
    ('cpus = 1', 'cpus = 7', 'cpus of replay is 7', 'offers is 6'),
    ('800M', '8G', 'memory of learner is 8192M', 'offers is 8000M'),
    ('800M"', '1G"\ngpus = 2', 'gpus of learner is 2', 'offers is 1'),
    ('[slurm]', '[slurm]\npartition = "gpu"', "'gpu'", 'main, short'),
    ('[slurm]', '[slurm]\npartition = "short"', 'time of', '600 s'),
    ('[slurm]', '[slurm]\noptions = ["--nonsense"]', 'unrecognized option'),
  ]:
    toml = SMALL.replace(before, after, 1)
    run.write_cluster(toml)
    said = run.submit(code=2)
    assert all(word in said for word in words), said
    assert run.cluster.command('squeue', '-h') == ''
    assert not run.directory.path.exists() or not run.directory.read_running()


@pytest.mark.cluster
def test_cartpole_is_solved_across_three_nodes(cluster):
  toml = (
    SMALL
    + """
[slurm.learner]
options = ["--nodelist=node1"]
[slurm.replay]
options = ["--nodelist=node2"]
[slurm.actor]
options = ["--nodelist=node3"]
"""
  )
  env = 'gymnasium:CartPole-v1'
  with Run(cluster, 'cartpole', toml=toml, env=env) as run:
    run.submit(
      *('--num-actors', '2', '--envs-per-actor', '4', '--max-seconds', '500'),
      *('--solved-return', '475'),
    )
    summary = run.wait(600)
    assert summary.stop.reason == 'solved', summary
    hosts = {w: run.place(w).host for w in ('learner/0', 'replay/0', 'actor/0')}
    assert set(hosts.values()) == {'node1', 'node2', 'node3'}
    policy = run.distacme('evaluate', run.directory.path, '--episodes', '5')
    assert 'mean return' in policy


@pytest.mark.cluster
def test_a_killed_actor_is_restarted_in_its_place(run):
  run.submit(*LONG)
  run.learns()
  place, node = run.place('actor/1'), run.node('actor/1')
  killed = time.time()
  assert node.kill(
    'main.main(sys.argv[1:])) ' + f'{run.directory.path} actor/1'
  )
  run.acts('actor/1', killed + 1)
  assert run.place('actor/1') == place  # the job is the same, and still runs
  run.learns()


@pytest.mark.cluster
@pytest.mark.parametrize('worker', ['actor/0', 'learner/0', 'replay/0'])
def test_a_node_without_power_takes_its_workers_along_and_no_others(
  cluster, worker
):
  name = f'power-{worker.replace("/", "-")}'
  # Else all would be on the first node.
  toml = (
    SMALL
    + """
[slurm.variables]
options = ["--nodelist=node3"]
[slurm.evaluator]
options = ["--nodelist=node3"]
[slurm.learner]
options = ["--exclude=node3"]
"""
  )
  with Run(cluster, name, toml=toml) as run:
    run.submit(*LONG)
    run.learns()
    wait_for(run.directory.last_step, 60, 'a checkpoint')
    first = min(row['learner_steps'] for row in run.rows('learner'))
    assert first < 100  # the control of `goes_on_from`
    wait_for(lambda: list(run.directory.replay.glob('*')), 60, 'of replay')
    node = run.node(worker)
    lost = [
      place.worker
      for place in records.every_place(run.directory)
      if place.host == node.name
    ]
    off, saved = time.time(), run.directory.last_step()
    node.off()
    try:
      wait_for(lambda: run.place(worker).since > off, 150, 'the job elsewhere')
      assert run.place(worker).host != node.name
      if 'learner/0' in lost:
        wait_for(lambda: run.place('learner/0').since > off, 60, 'the learner')
        run.goes_on_from(saved, run.place('learner/0').since)
      run.learns()
    finally:
      node.on()
    for place in records.every_place(run.directory):
      assert (place.since > off) == (place.worker in lost), place
    assert not run.directory.read_summary()
    run.distacme('stop', run.directory.path)
    assert run.wait().stop.reason == 'interrupted'
  cluster.wait_until_idle()


@pytest.mark.cluster
def test_workers_that_were_cut_off_end_once_others_take_their_place(cluster):
  toml = SMALL + '[slurm.variables]\noptions = ["--nodelist=node3"]\n'
  toml += '[slurm.learner]\noptions = ["--exclude=node3"]\n'
  with Run(cluster, 'cut-off', toml=toml) as run:
    run.submit(*LONG)
    run.learns()
    node, cut = run.node('learner/0'), time.time()
    node.unplug()
    try:
      assert node.processes(f'{run.directory.path} learner/0')
      wait_for(lambda: run.place('learner/0').since > cut, 150, 'elsewhere')
      wait_for(
        lambda: not node.processes(str(run.directory.path)),
        60,
        'the end of those that were cut off',
      )
      run.learns()
    finally:
      node.plug()
  cluster.wait_until_idle()


@pytest.mark.cluster
def test_a_lost_variable_server_comes_back_on_another_node(cluster):
  toml = SMALL + '[slurm.variables]\noptions = ["--exclude=node1"]\n'
  toml += '[slurm.learner]\noptions = ["--nodelist=node1"]\n'
  with Run(cluster, 'variables', toml=toml) as run:
    run.submit(*LONG)
    run.learns()
    node, steps = run.node('variables/0'), run.steps('env_steps')
    off = time.time()
    node.off()
    try:
      wait_for(lambda: run.place('variables/0').since > off, 150, 'elsewhere')
      run.learns()
      begun = run.place('variables/0').since
      counts = [r['env_steps'] for r in run.rows() if r['time'] > begun]
      # Of the second before it was lost, not from 0.
      assert min(counts) > steps / 2
      assert run.place('learner/0').since < off
    finally:
      node.on()
  cluster.wait_until_idle()


@pytest.mark.cluster
def test_a_requeued_learner_goes_on_from_its_checkpoint(run):
  run.submit(*LONG)
  run.learns()
  wait_for(lambda: run.directory.last_step(), 60, 'a checkpoint')
  saved, since = run.directory.last_step(), time.time()
  run.cluster.command('scontrol', 'requeue', run.place('learner/0').job)
  wait_for(lambda: run.place('learner/0').since > since, 90, 'the requeued job')
  run.goes_on_from(saved, run.place('learner/0').since)
  assert run.place('replay/0').since < since


@pytest.mark.cluster
def test_a_preempted_learner_saves_and_goes_on(run):
  run.submit(*LONG, '--checkpoint-period-s', '100000')
  run.learns()
  began, preempted = run.place('learner/0'), time.time()
  run.cluster.command(
    *('sbatch', '--partition=urgent', f'--nodelist={began.host}'),
    *('--cpus-per-task=6', '--mem=100M', '--output=/dev/null'),
    *('--wrap', 'sleep 5'),
  )
  wait_for(lambda: run.place('learner/0').ends, 240, 'the preemption')
  saved = run.directory.last_step()
  assert saved and saved > 20  # only the signal lets it save so late
  wait_for(lambda: run.place('learner/0').since > preempted, 120, 'its start')
  run.goes_on_from(saved, run.place('learner/0').since)
  assert not run.directory.read_summary()


@pytest.mark.cluster
def test_a_job_at_its_time_limit_saves_and_starts_anew(cluster):
  toml = SMALL + '[slurm.learner]\ntime = "00:02:00"\n'
  toml = toml.replace('[slurm]', '[slurm]\nwarning_s = 30', 1)
  with Run(cluster, 'time-limit', toml=toml) as run:
    # Only the warning lets it save so late.
    run.submit(*LONG, '--checkpoint-period-s', '100000')
    run.learns()
    began = run.place('learner/0').since
    wait_for(lambda: run.place('learner/0').ends, 130, 'the warning')
    assert run.place('learner/0').ends[0].how == 'its time was up'
    wait_for(lambda: run.place('learner/0').since > began, 60, 'its new start')
    saved = run.directory.last_step()
    assert saved and saved > 20
    run.goes_on_from(saved, run.place('learner/0').since)


@pytest.mark.cluster
def test_scancel_of_all_jobs_leaves_no_process_anywhere(run):
  run.submit(*LONG)
  run.learns()
  assert run.left()
  run.cluster.command('scancel', *records.jobs(run.directory))
  wait_for(lambda: not run.left(), 60, 'no process')
  summary = run.wait(30)
  assert summary.stop.reason == 'terminated'
  assert run.directory.last_step()
  # The same command goes on from there.
  run.submit(*LONG)
  run.learns()
  assert run.steps() > summary.counts['learner_steps']


@pytest.mark.cluster
def test_scancel_of_one_needed_job_ends_the_run_with_a_sentence(run):
  run.submit(*LONG)
  run.learns()
  run.cluster.command('scancel', run.place('learner/0').job)
  summary = run.wait(200)
  assert summary.stop.reason == 'failed'
  assert 'learner/0 is gone' in summary.stop.detail


@pytest.mark.cluster
def test_a_killed_supervision_of_a_needed_worker_ends_the_run(run):
  run.submit(*LONG)
  run.learns()
  command = f'deploy.supervise slurm {run.directory.path} learner'
  assert run.node('learner/0').kill(command)
  summary = run.wait(200)
  assert summary.stop.reason == 'failed'
  assert 'learner/0 is gone' in summary.stop.detail
  wait_for(lambda: not run.left(), 60, 'no process')


@pytest.mark.cluster
def test_scancel_of_the_variable_server_ends_the_other_jobs(run):
  run.submit(*LONG)
  run.learns()
  run.cluster.command('scancel', run.place('variables/0').job)
  assert run.wait(200).stop.reason == 'terminated'
  wait_for(lambda: not run.left(), 60, 'no process')


@pytest.mark.cluster
def test_stop_ends_a_run_and_its_waiting_jobs(cluster):
  toml = SMALL + '[slurm.evaluator]\noptions = ["--hold"]\n'
  with Run(cluster, 'stop', toml=toml) as run:
    run.submit(*LONG)
    run.learns()
    assert 'JobHeldUser' in run.distacme('status', run.directory.path)
    assert 'interrupted' in run.distacme('stop', run.directory.path)
    wait_for(lambda: not run.states(), 30, 'no job')
    assert not run.left()
    said = run.distacme('stop', run.directory.path, code=2)
    assert 'nothing to stop' in said


@pytest.mark.cluster
def test_stop_cancels_a_run_that_has_not_begun(cluster):
  toml = SMALL.replace('[slurm]', '[slurm]\noptions = ["--hold"]')
  with Run(cluster, 'not-begun', toml=toml) as run:
    run.submit(*LONG)
    status = run.distacme('status', run.directory.path)
    assert 'PENDING' in status
    said = run.submit(*LONG, code=2)
    assert 'goes on: 7 of its jobs' in said
    assert 'nothing of the run has begun' in run.distacme(
      'stop', run.directory.path
    )
    assert not run.states()


@pytest.mark.cluster
def test_actors_come_and_go(run):
  run.submit(*LONG)
  run.learns()
  scaled = time.time()
  run.distacme('scale', run.directory.path, '--num-actors', '5')
  run.acts('actor/4', scaled)
  run.distacme('scale', run.directory.path, '--num-actors', '2')
  wait_for(
    lambda: (
      not any(
        node.processes(f'{run.directory.path} actor/4')
        for node in run.cluster.nodes.values()
      )
    ),
    60,
    'actor/4 to end',
  )
  run.learns()
  run.distacme('stop', run.directory.path)
  assert run.wait().stop.reason == 'interrupted'


FAILS_ON_NODES = """
import os
from distacme.testing import environments

def make(seed):
  if 'SLURM_JOB_ID' in os.environ:
    raise RuntimeError('there is no licence on this node')
  return environments.catch(seed)
"""


@pytest.mark.cluster
def test_a_worker_that_fails_everywhere_ends_the_run(cluster):
  (cluster.shared / 'licensed.py').write_text(FAILS_ON_NODES)
  with Run(cluster, 'fails', env='licensed:make') as run:
    run.submit(*LONG)
    summary = run.wait(120)
    assert summary.stop.reason == 'failed'
    assert 'there is no licence on this node' in summary.stop.detail
    assert run.distacme('status', run.directory.path, code=1)
    # No job was tried on another node.
    assert not any(
      end.requeued
      for place in records.every_place(run.directory)
      for end in place.ends
    )


@pytest.mark.cluster
def test_an_actor_that_is_killed_again_and_again_is_started_elsewhere(run):
  run.submit(*LONG, '--max-restarts', '1')
  run.learns()
  began = run.place('actor/2')
  command = f'{run.directory.path} actor/2'

  def killed_twice():
    run.node('actor/2').kill(command)
    return run.place('actor/2').ends

  ends = wait_for(killed_twice, 60, 'the job to leave')
  assert ends[0].requeued
  assert 'ended with signal 9' in ends[0].how
  wait_for(lambda: run.place('actor/2').since > began.since, 60, 'its start')
  run.acts('actor/2', run.place('actor/2').since)
  assert run.place('actor/1').ends == ()


@pytest.mark.cluster
def test_one_job_runs_a_program_on_two_nodes(cluster):
  toml = SMALL + 'one_job = true\nnodes = 2\n'
  with Run(cluster, 'one-job', toml=toml) as run:
    run.submit(
      *('--num-actors', '3', '--max-env-steps', '3000'),
      *('--eval-period', '1000'),
    )
    assert run.wait().stop.reason == 'step_limit'
    assert (
      len({place.host for place in records.every_place(run.directory)}) == 2
    )


@pytest.mark.cluster
def test_one_job_on_two_nodes_saves_at_its_time_limit(cluster):
  toml = SMALL.replace('"01:00:00"', '"00:02:00"')
  # A command in the place of Python's path, as a container's would be.
  toml += 'one_job = true\nnodes = 2\nwarning_s = 30\n'
  toml += f'python = "env THERE=1 {sys.executable}"\n'
  with Run(cluster, 'one-job-limit', toml=toml) as run:
    run.submit(*LONG, '--checkpoint-period-s', '100000')
    run.learns()
    began = run.place('learner/0').since
    wait_for(lambda: run.place('learner/0').ends, 130, 'the warning')
    saved = run.directory.last_step()
    assert saved and saved > 20
    wait_for(lambda: run.place('learner/0').since > began, 90, 'its new start')
    run.goes_on_from(saved, run.place('learner/0').since)


@pytest.mark.cluster
def test_a_controller_that_is_restarted_changes_nothing(run):
  run.submit(*LONG)
  run.learns()
  run.cluster.end_daemon('slurmctld')
  run.learns()
  run.cluster.daemon('slurmctld', 'slurmctld', '-D')
  run.learns()
  wait_for(lambda: len(run.states()) == 7, 60, 'all jobs known')
  run.distacme('stop', run.directory.path)
  assert run.wait().stop.reason == 'interrupted'


@pytest.mark.cluster
def test_doctor_says_what_of_a_cluster_works(run):
  run.write_cluster(SMALL)
  said = run.distacme('doctor', '--cluster', f'{run.directory.path}.toml')
  assert 'partitions main, short, urgent (default: main)' in said
  assert re.search(r'ok +distacme on a node: node\d \(10\.213', said)
  assert 'slurm works' in said
  run.write_cluster(SMALL + 'prologue = "exit 3"\npartition = "gpu"\n')
  said = run.distacme(
    'doctor', '--cluster', f'{run.directory.path}.toml', code=1
  )
  assert "partition = 'gpu'" in said
  assert 'no cluster works' in said


@pytest.mark.cluster
def test_logs_are_printed_and_unknown_workers_refused(run):
  run.submit('--num-actors', '1', '--max-env-steps', '1000')
  run.wait()
  said = run.distacme('logs', run.directory.path)
  assert '==> learner/0 <==' in said
  run.distacme('logs', run.directory.path, 'actor/0')
  said = run.distacme('logs', run.directory.path, 'actor/7', code=2)
  assert "no worker 'actor/7'" in said


@pytest.mark.cluster
def test_workers_wait_for_a_variable_server_in_the_queue(cluster):
  toml = SMALL + '[slurm.variables]\noptions = ["--hold"]\n'
  with Run(cluster, 'queue', toml=toml) as run:
    run.submit(*LONG)
    job = records.job_of(run.directory, 'variables/0')
    wait_for(lambda: run.place('actor/0'), 60, 'an actor')
    # Longer than workers on one host wait for their server.
    time.sleep(75)
    run.cluster.command('scontrol', 'release', job)
    run.learns()
    places = {w: run.place(w) for w in ('learner/0', 'replay/0', 'actor/0')}
    assert not any(place.ends for place in places.values())
    # Longer than workers on one host go on without.
    began = run.place('variables/0').since
    run.cluster.command('scontrol', 'requeuehold', job)
    time.sleep(140)
    run.cluster.command('scontrol', 'release', job)
    wait_for(lambda: run.place('variables/0').since > began, 60, 'its start')
    run.learns()
    assert places == {worker: run.place(worker) for worker in places}


@pytest.mark.cluster
def test_replay_servers_and_a_relay_are_on_other_hosts(cluster):
  toml = SMALL + '[relay]\nmemory = "500M"\n'
  toml += '[slurm.learner]\noptions = ["--nodelist=node1"]\n'
  toml += '[slurm.replay]\noptions = ["--exclude=node1"]\n'
  toml += '[slurm.actor]\noptions = ["--exclude=node1"]\n'
  with Run(cluster, 'shards', toml=toml) as run:
    run.submit(*LONG, '--num-replay-servers', '2', '--num-relays', '1')
    run.learns()
    assert run.place('replay/1').job == f'{run.place("replay/0").job[:-1]}1'
    assert 'node1' not in (
      run.place('replay/0').host,
      run.place('replay/1').host,
    )
    for worker in ('replay/1', 'relay/0'):
      killed, began = time.time(), run.place(worker)
      assert run.node(worker).kill(
        f'main.main(sys.argv[1:])) {run.directory.path} {worker}'
      )
      run.acts('actor/1', killed + 1)
      run.learns()
      assert run.place(worker) == began
    run.distacme('stop', run.directory.path)
    assert run.wait().stop.reason == 'interrupted'


@pytest.mark.cluster
def test_the_learner_alone_is_given_accelerators(cluster):
  toml = SMALL.replace('800M"', '800M"\ngpus = 1', 1)  # the learner's
  with Run(cluster, 'accelerators', toml=toml) as run:
    run.submit(*LONG)
    run.learns()
    shown = {}
    for worker in ('learner/0', 'actor/0'):
      command = f'{run.directory.path} {worker}'
      (pid,) = run.node(worker).processes(command)
      variables = pathlib.Path(f'/proc/{pid}/environ').read_bytes().split(b'\0')
      shown[worker] = {
        name: value
        for name, _, value in (v.decode().partition('=') for v in variables)
      }
    assert shown['learner/0']['CUDA_VISIBLE_DEVICES'] == '0'
    assert 'JAX_PLATFORMS' not in shown['learner/0'] or os.environ.get(
      'JAX_PLATFORMS'
    )
    assert shown['actor/0'].get('CUDA_VISIBLE_DEVICES', '') != '0'
    assert shown['actor/0']['JAX_PLATFORMS'] == 'cpu'


@pytest.mark.cluster
def test_seeds_are_programs_of_their_own(cluster):
  with Run(cluster, 'seeds') as run:
    run.submit(
      *('--num-actors', '1', '--max-env-steps', '1000', '--seeds', '0-1')
    )
    for seed in range(2):
      directory = run_directory.RunDirectory(run.directory.path / f'seed{seed}')
      wait_for(lambda d=directory: d.read_summary(), 240, f'seed {seed}')
      assert directory.read_summary().stop.reason == 'step_limit'


def _may_be_read_by(user, *paths):
  tried = subprocess.run(
    ['/bin/sh', '-c', ' && '.join(f'test -x {path}' for path in paths)],
    user=user,
    group=user,
    extra_groups=[],
    check=False,
  )
  return tried.returncode == 0


@pytest.mark.cluster
def test_a_user_without_root_submits(cluster):
  if not _may_be_read_by(65534, SCRIPT, pathlib.Path(sys.executable).resolve()):
    pytest.skip(f'{sys.executable} is for this user alone')
  folder = cluster.shared / 'of-nobody'
  folder.mkdir()
  os.chown(folder, 65534, 65534)
  toml = cluster.shared / 'nobody.toml'
  toml.write_text(SMALL)
  run_dir = folder / 'run'
  done = subprocess.run(
    [
      *(str(SCRIPT), 'train', '--agent', 'dqn', '--env', CATCH),
      *('--mode', 'slurm', '--cluster', str(toml), '--run-dir', str(run_dir)),
      *('--num-actors', '1', '--max-env-steps', '1000'),
    ],
    user=65534,
    group=65534,
    extra_groups=[],
    cwd=folder,
    env={
      'PATH': os.environ['PATH'],
      'HOME': str(folder),
      **cluster.environment,
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  directory = run_directory.RunDirectory(run_dir)
  wait_for(lambda: directory.read_summary(), 240, 'the end')
  assert directory.read_summary().stop.reason == 'step_limit'
  assert (run_dir / 'summary.json').stat().st_uid == 65534
