"""A program as jobs of Slurm, without a cluster."""

import pathlib
import subprocess
import sys

import pytest

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import share
from distacme.deploy import slurm_jobs
from distacme.programs import cli
from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.run import run_directory

DIRECTORY = run_directory.RunDirectory(pathlib.Path('/shared/my runs/pong'))


def jobs(toml='', **settings):
  run = run_config.RunConfig(mode='slurm', **settings)
  program = program_lib.make_program(run)
  cluster = cluster_lib.parse(toml)
  return {job.name: job for job in slurm_jobs.of_program(program, cluster)}


def test_each_kind_is_a_job_and_the_learners_comes_first():
  found = jobs(num_actors=3)
  assert list(found) == [
    'learner',
    'variables',
    'replay',
    'actor',
    'evaluator',
  ]
  assert found['learner'].numbers('7') == {'learner/0': '7'}
  assert found['actor'].numbers('8') == {
    'actor/0': '8_0',
    'actor/1': '8_1',
    'actor/2': '8_2',
  }


def test_actors_that_share_a_job_have_the_resources_of_all():
  job = jobs(
    '[slurm]\nactors_per_job = 4\n[actor]\ncpus = 2\nmemory = "1G"',
    num_actors=10,
  )['actor']
  assert [len(workers) for workers in job.workers] == [4, 4, 2]
  assert job.resources == cluster_lib.Resources(8, '4096M', 0)
  assert job.numbers('8')['actor/9'] == '8_2'
  assert '--per-job 4' in job.arguments


def test_one_job_has_on_each_node_what_the_fullest_needs():
  toml = '[slurm]\none_job = true\nnodes = 2\n[learner]\ncpus = 4\ngpus = 1\n'
  (job,) = jobs(toml, num_actors=4).values()
  # Variable server, replay, learner, evaluator and two of the actors.
  assert job.resources.cpus == 1 + 2 + 4 + 1 + 2
  assert job.resources.gpus == 1
  assert job.hosts == 2
  assert set(job.numbers('5').values()) == {'5'}


def test_actors_are_spread_over_the_hosts_and_services_on_the_first():
  program = program_lib.make_program(run_config.RunConfig(num_actors=5))
  first, second = (share.spread(program, host, 2) for host in range(2))
  assert second == ['actor/1', 'actor/3']
  assert sorted(first + second) == sorted(w.name for w in program.owners())


def test_nodes_without_a_worker_are_refused():
  with pytest.raises(ValueError, match='nodes = 3 .* without a worker'):
    jobs('[slurm]\none_job = true\nnodes = 3', num_actors=2)


def test_seeds_of_several_runs_are_told_apart():
  seed = run_directory.RunDirectory(pathlib.Path('/shared/pong/seed3'))
  cluster = cluster_lib.parse('')
  text = slurm_jobs.script_of(jobs()['learner'], cluster, seed)
  assert '#SBATCH --job-name="pong-seed3/learner"\n' in text


def test_a_lodger_has_no_job():
  assert 'replay' not in jobs(replay_in_learner=True)


def test_a_job_without_workers_is_refused():
  program = program_lib.make_program(run_config.RunConfig(num_actors=2))
  with pytest.raises(ValueError, match='no worker actor/2.*It has variables/0'):
    share.names_of(program, 'actor', 2, 1)


def script(toml='', name='actor', **settings):
  cluster = cluster_lib.parse(toml)
  return slurm_jobs.script_of(jobs(toml, **settings)[name], cluster, DIRECTORY)


def test_a_script_says_all_that_slurm_is_asked_for():
  toml = """
[learner]
cpus = 6
memory = "12G"
gpus = 2
[slurm]
account = "lab"
python = "/opt/python -u"
[slurm.learner]
partition = "gpu"
qos = "long"
time = "2-00:00:00"
options = ["--constraint=ib", "--mail-type=FAIL"]
prologue = "module load cuda/12"
"""
  assert script(toml, 'learner') == (
    '#!/bin/bash\n'
    '# learner/0 of the run in /shared/my runs/pong.\n'
    '# Written by distacme. It may be edited, and submitted by hand:\n'
    "#   sbatch '/shared/my runs/pong/cluster/jobs/learner.sh'\n"
    '#SBATCH --job-name="pong/learner"\n'
    '#SBATCH --output="/shared/my runs/pong/logs/slurm/learner.out"\n'
    '#SBATCH --open-mode=append\n'
    '#SBATCH --requeue\n'
    '#SBATCH --signal=B:USR1@120\n'
    '#SBATCH --time=2-00:00:00\n'
    '#SBATCH --nodes=1\n'
    '#SBATCH --ntasks=1\n'
    '#SBATCH --cpus-per-task=6\n'
    '#SBATCH --mem=12288M\n'
    '#SBATCH --gres=gpu:2\n'
    '#SBATCH --partition=gpu\n'
    '#SBATCH --account=lab\n'
    '#SBATCH --qos=long\n'
    '#SBATCH --constraint=ib\n'
    '#SBATCH --mail-type=FAIL\n'
    '\n'
    'module load cuda/12\n'
    '\n'
    'exec /opt/python -u -m distacme.deploy.supervise slurm '
    "'/shared/my runs/pong' learner\n"
  )


@pytest.mark.parametrize(
  'toml, name',
  [
    ('', 'actor'),
    ('[slurm]\nactors_per_job = 2', 'actor'),
    ('[slurm]\none_job = true\nnodes = 2', 'program'),
    ('[slurm]\nprologue = """\nset -e\ntrue\n"""', 'replay'),
  ],
)
def test_a_script_is_a_script(toml, name, tmp_path):
  text = script(toml, name, num_actors=4)
  path = tmp_path / 'job.sh'
  path.write_text(text)
  subprocess.run(['bash', '-n', path], check=True)
  # All options stand before the first command, after which sbatch reads none.
  lines = text.splitlines()
  last = max(i for i, line in enumerate(lines) if line.startswith('#SBATCH'))
  assert all(line.startswith('#') for line in lines[: last + 1])
  assert sys.executable in text


def test_a_dry_run_prints_jobs_and_submits_nothing(
  tmp_path, capsys, monkeypatch
):
  monkeypatch.setenv('PATH', str(tmp_path))  # without Slurm
  toml = tmp_path / 'cluster.toml'
  toml.write_text('[actor]\nmemory = "3G"\n')
  flags = '--mode slurm --env distacme.testing.environments:catch --dry-run'
  flags += f' --num-actors 2 --cluster {toml} --run-dir {tmp_path / "run"}'
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *flags.split()])
  assert exit_.value.code == 0
  printed = capsys.readouterr().out
  directory = run_directory.RunDirectory(tmp_path / 'run')
  for name in ('learner', 'variables', 'replay', 'actor', 'evaluator'):
    path = slurm_jobs.path_of(directory, name)
    assert path.read_text() in printed
    assert f'  sbatch {path}\n' in printed
  assert '#SBATCH --mem=3072M' in printed
  assert 'nothing was submitted' in printed
  assert directory.read_running() is None
  assert (directory.cluster / 'cluster.toml').read_text() == toml.read_text()


@pytest.mark.parametrize(
  'flags, words',
  [
    ('--mode slurm --replay-transport reverb', 'Reverb'),
    ('--mode slurm --learner-devices 0', 'gpus, in [learner]'),
    ('--mode slurm --actor-devices 0', 'actors keep to the CPU'),
    ('--mode slurm --cluster none.toml', 'none.toml cannot be read'),
    ('--mode processes --cluster c.toml', 'is for modes of a cluster'),
    ('--mode local --dry-run', 'is for modes of a cluster'),
    ('--mode slurm --env tests.deploy.none:env', 'none'),
  ],
)
def test_settings_that_do_not_fit_a_cluster_are_refused(
  tmp_path, capsys, flags, words
):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *flags.split(), '--run-dir', str(tmp_path / 'run')])
  assert exit_.value.code == 2
  assert words in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_without_slurm_nothing_is_submitted(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  flags = '--mode slurm --env distacme.testing.environments:catch'
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *flags.split(), '--run-dir', str(tmp_path / 'run')])
  assert exit_.value.code == 2
  assert 'sbatch is not here' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_a_time_limit_shorter_than_the_warning_is_refused(tmp_path, capsys):
  toml = tmp_path / 'cluster.toml'
  toml.write_text('[slurm]\ntime = "00:02:00"\n')
  flags = '--mode slurm --env distacme.testing.environments:catch --dry-run'
  with pytest.raises(SystemExit):
    cli.main(['train', *flags.split(), '--cluster', str(toml)])
  assert 'too short for warning_s = 120' in capsys.readouterr().err
