"""cluster.toml: every field, and what is refused."""

import dataclasses
import re

import pytest

from distacme.deploy import cluster as cluster_lib
from distacme.programs import cli


def test_the_example_has_every_field_with_its_default():
  text = cluster_lib.EXAMPLE.read_text()
  assert cluster_lib.parse(text) == cluster_lib.Cluster()
  tables = dict(
    re.findall(r'^\[(\w+)\]\n(.*?)(?=^\[|\Z)', text, re.MULTILINE | re.DOTALL)
  )
  for name, settings in [
    *((kind, cluster_lib.Resources) for kind in cluster_lib.KINDS),
    ('slurm', cluster_lib.Slurm),
    ('kubernetes', cluster_lib.Kubernetes),
  ]:
    written = re.findall(r'^(\w+) =', tables[name], re.MULTILINE)
    fields = [field.name for field in dataclasses.fields(settings)]
    if name in cluster_lib.KINDS and name != 'learner':
      fields.remove('gpus')
    assert sorted(written) == sorted(fields), name


def test_the_command_prints_the_example(capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['cluster-example'])
  assert exit_.value.code == 0
  assert capsys.readouterr().out == cluster_lib.EXAMPLE.read_text()


def test_a_kind_has_its_own_settings_and_the_others_those_of_all():
  cluster = cluster_lib.parse(
    '[slurm]\npartition = "cpu"\naccount = "lab"\n'
    '[slurm.learner]\npartition = "gpu"\n[learner]\ngpus = 2\n'
  )
  assert cluster.slurm_job('learner').partition == 'gpu'
  assert cluster.slurm_job('learner').account == 'lab'
  assert cluster.slurm_job('actor').partition == 'cpu'
  assert cluster.resources['learner'] == cluster_lib.Resources(4, '8G', 2)


@pytest.mark.parametrize(
  'text, words',
  [
    ('[slurm]\npartion = "x"', "'partion', perhaps 'partition'"),
    ('[lerner]\ncpus = 1', "no table 'lerner', perhaps 'learner'"),
    ('[actor]\ncpus = "2"', "cpus in [actor] must be a whole number, got '2'"),
    ('[actor]\ncpus = true', 'must be a whole number, got True'),
    ('[actor]\ncpus = 0', 'in [actor], cpus must be 1 or more, got 0'),
    ('[actor]\nmemory = "2GB"', 'like "16G", got \'2GB\''),
    ('[actor]\ngpus = 1', "gpus in [actor] is 1, and only the learner's"),
    ('[slurm]\ntime = "60"', 'like "24:00:00", got \'60\''),
    ('[slurm]\naccount = "a b"', "account must be one word, got 'a b'"),
    ('[slurm]\noptions = "--x"', 'options in [slurm] must be a list'),
    ('[slurm]\noptions = [1]', 'got 1'),
    ('[slurm]\noptions = ["x"]', "got 'x'"),
    ('[slurm]\nnodes = 2', 'nodes = 2 is for one_job = true'),
    ('[slurm]\nimport_path = ["/x"]', 'python of your own'),
    ('[slurm.learner]\nnodes = 2', "[slurm.learner] has no field 'nodes'"),
    ('[slurm]\nlearner = 1', 'slurm.learner must be a table'),
    ('learner = 3', 'learner must be a table, written [learner], got 3'),
    ('[kubernetes]\nstorage = "10Gi"', "got '10Gi'"),
    ('[kubernetes]\nuser_id = 0', 'user_id must be 1 or more'),
    ('max_requeues = -1', 'max_requeues must be 0 or more, got -1'),
    ('max_requeues = true', 'max_requeues in [the top] must be a whole number'),
    ('[x', 'TOML'),
  ],
)
def test_a_fault_is_named_with_its_field_and_value(tmp_path, text, words):
  path = tmp_path / 'cluster.toml'
  path.write_text(text)
  with pytest.raises(ValueError) as error:
    cluster_lib.read(path)
  assert str(path) in str(error.value)
  assert words in str(error.value) or words == 'TOML'
  assert 'cluster-example' in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
  with pytest.raises(ValueError, match='cannot be read.*cluster-example'):
    cluster_lib.read(tmp_path / 'none.toml')


@pytest.mark.parametrize(
  'time, seconds',
  [('00:00:30', 30), ('24:00:00', 86_400), ('2-01:00:00', 176_400)],
)
def test_times_are_slurms(time, seconds):
  assert cluster_lib.seconds(time) == seconds


def test_memory_is_in_mebibytes():
  assert cluster_lib.mebibytes('512M') == 512
  assert cluster_lib.mebibytes('2G') == 2048
  assert cluster_lib.mebibytes('1T') == 1024**2
