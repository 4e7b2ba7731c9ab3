"""What mode kubernetes asks of kubectl, and what it refuses before it asks.

No cluster is here: a script called kubectl writes down how it was called, and answers
as a cluster would.
"""

import json
import stat
import sys
from unittest import mock

import pytest
import yaml

from distacme import status as status_lib
from distacme.agents import dqn
from distacme.deploy import kubernetes
from distacme.deploy import kubernetes_engine
from distacme.deploy import records
from distacme.programs import cli
from distacme.programs import program as program_lib
from distacme.programs import training
from distacme.programs.commands import status as status_command
from distacme.run import run_directory
from distacme.testing import environments
from tests.deploy import manifest_checks

CATCH = 'distacme.testing.environments:catch'
IMAGE = '[kubernetes]\nimage = "registry.example/distacme:1"\n'
KUBECTL = f"""#!{sys.executable}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
with open(here / 'calls', 'a') as calls:
  calls.write(json.dumps(sys.argv[1:]) + '\\n')
answers = json.loads((here / 'answers').read_text())
said = ' '.join(sys.argv[1:])
after = here / 'after_exec'
if said.startswith('exec') and after.exists():
  after.rename(here / 'answers')
for begin, answer in answers.items():
  if said.startswith(begin):
    if isinstance(answer, str):
      sys.exit(answer)
    print(json.dumps(answer))
    break
"""


class Kubectl:
  """The script in the place of kubectl."""

  def __init__(self, folder):
    self.folder = folder
    folder.mkdir()
    path = folder / 'kubectl'
    path.write_text(KUBECTL)
    path.chmod(0o755)
    self.answer({'get': {'items': []}})

  def answer(self, answers, after_exec=None):
    """Answers by the beginning of the arguments; a text is a failure.

    Args:
      answers: by the beginning.
      after_exec: takes their place with the first `kubectl exec`.
    """
    (self.folder / 'answers').write_text(json.dumps(answers))
    if after_exec is not None:
      (self.folder / 'after_exec').write_text(json.dumps(after_exec))

  @property
  def calls(self):
    path = self.folder / 'calls'
    lines = path.read_text().splitlines() if path.exists() else []
    return [' '.join(json.loads(line)) for line in lines]


@pytest.fixture(name='kubectl')
def fixture_kubectl(tmp_path, monkeypatch):
  script = Kubectl(tmp_path / 'bin')
  monkeypatch.setenv('PATH', f'{script.folder}', prepend=':')
  return script


@pytest.fixture(name='no_kubectl')
def fixture_no_kubectl(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', f'{tmp_path}')


def train(tmp_path, cluster=IMAGE, **settings):
  """Submits a run in tmp_path/run."""
  path = tmp_path / 'cluster.toml'
  path.write_text(cluster)
  return training.train(
    dqn.Config(),
    env=settings.pop('env', CATCH),
    mode='kubernetes',
    cluster=path,
    run_dir=tmp_path / 'run',
    **settings,
  )


@pytest.fixture(name='submitted')
def fixture_submitted(tmp_path, kubectl):
  train(tmp_path)
  (kubectl.folder / 'calls').unlink()
  return run_directory.RunDirectory(tmp_path / 'run')


def manifests(tmp_path):
  folder = tmp_path / 'run/cluster/kubernetes'
  return {
    path.stem: list(yaml.safe_load_all(path.read_text()))
    for path in folder.glob('*.yaml')
  }


def test_a_dry_run_writes_manifests_and_submits_nothing(
  tmp_path, no_kubectl, capsys
):
  run = train(tmp_path, dry_run=True, num_actors=3)
  assert run.exit_code == 0
  out = capsys.readouterr().out
  written = manifests(tmp_path)
  assert not list(manifest_checks.faults(written['secret'] + written['run']))
  folder = tmp_path / 'run/cluster/kubernetes'
  assert (folder / 'run.yaml').read_text() in out
  assert f'kubectl apply -f {folder}/secret.yaml -f {folder}/run.yaml' in out
  assert (tmp_path / 'run/token').read_text() not in out
  for path in folder.glob('*.yaml'):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
  assert run_directory.RunDirectory(tmp_path / 'run').read_running() is None


def test_the_secrets_are_in_their_own_file_alone(tmp_path, kubectl):
  train(tmp_path)
  folder = tmp_path / 'run/cluster/kubernetes'
  token = (tmp_path / 'run/token').read_text()
  assert token in (folder / 'secret.yaml').read_text()
  for name in ('run', 'reader'):
    text = (folder / f'{name}.yaml').read_text()
    assert token not in text and 'PRIVATE KEY' not in text
  (secret,) = manifests(tmp_path)['secret']
  assert (
    secret['stringData']['key.pem'] == (tmp_path / 'run/key.pem').read_text()
  )


def test_a_run_is_checked_as_a_whole_before_any_of_it_is_submitted(
  tmp_path, kubectl, capsys
):
  train(tmp_path, num_actors=3)
  out = capsys.readouterr().out
  assert 'submitted: job run-actor in the namespace default (3 of' in out
  calls = [call.partition(' ')[0] for call in kubectl.calls]
  assert calls == ['get', 'get', 'get', 'delete', 'apply', 'apply']
  deleted, checked, applied = kubectl.calls[3:]
  assert checked == f'{applied} --dry-run=server'
  assert deleted == (
    'delete jobs --namespace default --selector app.kubernetes.io/instance=run '
    '--ignore-not-found --cascade=foreground --wait'
  )
  directory = run_directory.RunDirectory(tmp_path / 'run')
  assert directory.read_running().cluster == 'kubernetes'
  submission = records.read_submission(directory)
  assert submission.jobs['actor/2'] == 'run-actor-2'


def test_every_submission_has_another_id_and_a_run_keeps_its_own(
  tmp_path, kubectl
):
  found = []
  for _ in range(2):
    train(tmp_path)
    config_map = manifests(tmp_path)['run'][0]
    found.append(
      (config_map['data']['id'], config_map['metadata']['annotations'])
    )
    items = [{'metadata': config_map['metadata']}]
    kubectl.answer({'get configmaps': {'items': items}, 'get': {'items': []}})
  (first, notes), (second, others) = found
  assert first != second
  assert notes == others


def refused(tmp_path, sentence, **settings):
  with pytest.raises(ValueError, match=sentence):
    train(tmp_path, **settings)


def test_a_cluster_that_refuses_is_quoted_and_nothing_is_left(
  tmp_path, kubectl
):
  kubectl.answer({'get': {'items': []}, 'apply': 'quota exceeded'})
  refused(tmp_path, r'refused the run \(quota exceeded\)')
  assert kubectl.calls[-1].endswith('--dry-run=server')
  assert run_directory.RunDirectory(tmp_path / 'run').read_running() is None


def test_a_run_that_goes_on_is_not_submitted_again(tmp_path, kubectl):
  job = {'metadata': {'name': 'run-learner'}, 'status': {}}
  kubectl.answer({'get jobs': {'items': [job]}, 'get': {'items': []}})
  refused(tmp_path, 'run goes on in the namespace .*: run-learner')
  assert not (tmp_path / 'run').exists()
  job['status'] = {'conditions': [{'type': 'Complete', 'status': 'True'}]}
  kubectl.answer({'get jobs': {'items': [job]}, 'get': {'items': []}})
  train(tmp_path)


def test_the_run_of_another_directory_is_left_alone(tmp_path, kubectl):
  notes = {
    'distacme/run-id': 'x',
    'distacme/run-directory': 'you@there:/home/you/run',
  }
  found = {'metadata': {'name': 'run', 'annotations': notes}}
  kubectl.answer({'get configmaps': {'items': [found]}, 'get': {'items': []}})
  refused(tmp_path, 'another directory, you@there:/home/you/run, is called run')
  assert not (tmp_path / 'run').exists()


def test_pods_that_no_node_takes_are_refused_before_anything_is_submitted(
  tmp_path, kubectl
):
  node = {'metadata': {}, 'status': {'allocatable': {'cpu': '2'}}}
  kubectl.answer({'get nodes': {'items': [node]}, 'get': {'items': []}})
  refused(tmp_path, 'of .* offers is')
  assert not (tmp_path / 'run').exists()
  assert all(call.startswith('get ') for call in kubectl.calls)
  train(tmp_path, f'{IMAGE}autoscaled = true')


def test_no_answer_is_a_sentence(tmp_path, kubectl):
  kubectl.answer({'get': 'connection refused'})
  refused(tmp_path, 'the cluster does not answer: connection refused')


def test_without_kubectl_there_is_only_a_dry_run(tmp_path, no_kubectl):
  refused(tmp_path, 'kubectl is not here.*--dry-run')


def test_a_run_without_an_image_is_refused(tmp_path, no_kubectl):
  refused(
    tmp_path, r'image in \[kubernetes\].*is empty', cluster='', dry_run=True
  )


def test_without_pyyaml_nothing_is_written(tmp_path, kubectl, monkeypatch):
  monkeypatch.setitem(sys.modules, 'yaml', None)
  with pytest.raises(
    ImportError, match=r"pip install 'distacme\[kubernetes\]'"
  ):
    train(tmp_path, dry_run=True)
  assert not (tmp_path / 'run').exists()
  assert not kubectl.calls


def test_what_is_on_this_machine_only_is_refused(tmp_path, kubectl):
  refused(
    tmp_path,
    'would be written into the run directory of this machine',
    demonstrations='tests.deploy.test_kubernetes:demonstrations',
  )
  refused(
    tmp_path,
    'cannot be imported by name',
    env=lambda seed: environments.catch(seed),
  )


@pytest.mark.parametrize(
  'text, sentence',
  [
    ('namespace = "Team A"', "namespace must be lower case .* got 'Team A'"),
    ('namespace = ""', 'namespace is empty'),
    ('queue = "a_b"', "queue must be lower case .* got 'a_b'"),
    ('image = "a b"', "image must be one word, got 'a b'"),
    ('storage = "10Gi"', "storage must be a whole number .* got '10Gi'"),
    ('user_id = 0', 'user_id must be 1 or more, got 0'),
    ('gpu_resource = "gpu"', "gpu_resource is like .* got 'gpu'"),
    ('node_selector = {gpu = true}', 'node_selector is of texts'),
    ('tolerations = [{keys = "gpu"}]', 'tolerations are tables with key'),
  ],
)
def test_what_cannot_be_is_refused_by_its_name(tmp_path, text, sentence):
  refused(tmp_path, sentence, cluster=f'[kubernetes]\n{text}', dry_run=True)


def job(kind, completions=1, ended='', **status):
  """Returns a Job as the cluster shows it."""
  if ended:
    status['conditions'] = [{'type': ended, 'status': 'True'}]
  return {
    'metadata': {
      'name': f'run-{kind}',
      'labels': {'app.kubernetes.io/component': kind},
    },
    'spec': {'completions': completions},
    'status': status,
  }


def pod(kind, index, created='2026-11-29T01:00:00Z', **status):
  """Returns a pod as the cluster shows it."""
  labels = {
    'app.kubernetes.io/component': kind,
    'batch.kubernetes.io/job-name': f'run-{kind}',
    'batch.kubernetes.io/job-completion-index': f'{index}',
  }
  waits = status['phase'] == 'Pending'
  return {
    'metadata': {'labels': labels, 'creationTimestamp': created},
    'spec': {} if waits else {'nodeName': 'node2'},
    'status': status,
  }


def ended_with(**terminated):
  return {'containerStatuses': [{'state': {'terminated': terminated}}]}


def test_the_states_are_those_of_the_newest_pods(submitted, kubectl):
  full = {'type': 'PodScheduled', 'status': 'False', 'message': 'no such node'}
  killed = ended_with(reason='OOMKilled', exitCode=137)
  pods = [
    pod('actor', 0, '2026-11-29T02:00:00Z', phase='Running'),
    pod('actor', 0, phase='Failed'),
    pod('actor', 2, phase='Succeeded'),
    pod('learner', 0, phase='Pending', conditions=[full]),
    pod('replay', 0, phase='Failed', **killed),
    pod('evaluator', 0, phase='Succeeded'),
  ]
  jobs = [
    job('actor', completions=5, completedIndexes='2-3'),
    job('learner'),
    job('replay'),
    job('evaluator', ended='Complete'),
  ]
  queued = job('variables')
  queued['spec']['suspend'] = True
  answers = {'get pods': {'items': pods}}
  answers['get jobs'] = {'items': [*jobs, queued]}
  kubectl.answer(answers)
  assert kubernetes.job_states(submitted) == {
    'actor/0': 'Running on node2',
    'actor/1': 'without a pod yet',
    'actor/4': 'without a pod yet',
    'learner/0': 'Pending (no such node)',
    'replay/0': 'Failed on node2 (OOMKilled, exit code 137) and is replaced',
    'variables/0': 'suspended: its queue has not admitted it',
  }
  assert submitted.read_running() is not None
  kubectl.answer({'get': 'gone away'})
  with pytest.raises(ValueError, match='does not answer: gone away'):
    kubernetes.job_states(submitted)


def test_the_end_of_a_run_is_written_here_once_its_pod_has_told_it(
  submitted, kubectl
):
  last_lines = ended_with(reason='Error', exitCode=143, message='a log\n')
  before = pod('variables', 0, phase='Failed', **last_lines)
  kubectl.answer(
    {
      'get pods': {'items': [before]},
      'get jobs': {'items': [job('variables')]},
    }
  )
  assert kubernetes.job_states(submitted)
  assert submitted.read_summary() is None
  stop = status_lib.Stop(status_lib.StopReason.SOLVED)
  told = status_lib.Status(seconds=3.0, counts={'env_steps': 7}, stop=stop)
  message = ended_with(exitCode=0, message=json.dumps(told.to_dict()))
  last = pod(
    'variables', 0, '2026-11-29T02:00:00Z', phase='Succeeded', **message
  )
  kubectl.answer(
    {
      'get pods': {'items': [last, before]},
      'get jobs': {'items': [job('variables', ended='Complete')]},
    }
  )
  assert kubernetes.job_states(submitted) == {}
  assert submitted.read_summary() == told
  assert submitted.read_running() is None


@pytest.fixture(name='applied')
def fixture_applied(tmp_path, kubectl):
  """A run whose manifests were written by a dry run, and applied by hand."""
  train(tmp_path, dry_run=True)
  directory = run_directory.RunDirectory(tmp_path / 'run')
  # Of an earlier start, which this one goes on with.
  directory.write_summary(
    status_lib.Status(
      seconds=1.0,
      counts={'env_steps': 3},
      stop=status_lib.Stop(status_lib.StopReason.INTERRUPTED),
    )
  )
  assert directory.read_running() is None
  kubectl.answer(going_on(tmp_path))
  return directory


def going_on(tmp_path, run_id=None):
  """Returns the answers of a cluster in which a run goes on.

  Args:
    tmp_path: of its directory.
    run_id: of another directory's run with the name.
  """
  found = manifests(tmp_path)['run'][0]['metadata']
  if run_id is not None:
    found['annotations']['distacme/run-id'] = run_id
  return {
    'get configmaps': {'items': [{'metadata': found}]},
    'get pods': {'items': [pod('variables', 0, phase='Running')]},
    'get jobs': {'items': [job('variables')]},
    'exec': {},
  }


def ended():
  """Returns the answers of a cluster in which a run has ended."""
  stop = status_lib.Stop(status_lib.StopReason.INTERRUPTED)
  told = status_lib.Status(seconds=3.0, counts={'env_steps': 7}, stop=stop)
  message = ended_with(exitCode=0, message=json.dumps(told.to_dict()))
  last = pod('variables', 0, phase='Succeeded', **message)
  return {
    'get pods': {'items': [last]},
    # That of the actors ends a little later.
    'get jobs': {'items': [job('variables', ended='Complete'), job('actor')]},
    'get': {'items': []},
  }


def test_a_run_that_was_applied_by_hand_is_known_once_it_is_looked_at(
  applied, kubectl
):
  assert kubernetes.job_states(applied) == {'variables/0': 'Running on node2'}
  assert applied.read_running().cluster == 'kubernetes'
  assert applied.read_summary() is None
  kubectl.answer(ended())
  for _ in range(2):
    assert kubernetes.job_states(applied)
    assert applied.read_running() is None
    assert applied.read_summary().counts == {'env_steps': 7}


def test_the_end_of_a_run_that_nobody_looked_at_is_written(applied, kubectl):
  kubectl.answer(ended())
  kubernetes.job_states(applied)
  assert applied.read_summary().counts == {'env_steps': 7}


def test_a_run_that_was_applied_by_hand_is_stopped(applied, kubectl, capfd):
  kubectl.answer(going_on(applied.path.parent), after_exec=ended())
  assert distacme('stop', applied.path) == 0
  assert '7 environment steps' in capfd.readouterr().out
  assert applied.read_running() is None


def test_a_run_that_was_applied_by_hand_is_scaled(applied, kubectl):
  assert distacme('scale', applied.path, '--num-actors', 2) == 0
  assert kubectl.calls[-1].startswith('patch job/run-actor ')


def test_the_end_of_a_run_that_was_applied_by_hand_is_waited_for(
  applied, kubectl, monkeypatch, capfd
):
  waited = []

  def wait(seconds):
    waited.append(seconds)
    kubectl.answer(ended())

  monkeypatch.setattr(status_command, 'time', mock.Mock(sleep=wait))
  assert distacme('status', applied.path, '--wait') == 130
  assert waited
  assert applied.read_summary().counts == {'env_steps': 7}


def test_an_end_that_is_known_is_shown_without_the_cluster(
  applied, kubectl, capfd
):
  kubectl.answer({'get': 'connection refused'})
  assert distacme('status', applied.path, '--wait') == 130
  out = capfd.readouterr().out
  assert 'goes on again is not known' in out and 'connection refused' in out
  applied.summary.unlink()
  assert distacme('status', applied.path, '--wait') == 2


@pytest.mark.parametrize('command', ['stop', 'scale'])
def test_the_run_of_another_directory_is_neither_stopped_nor_scaled(
  applied, kubectl, capfd, command
):
  kubectl.answer(going_on(applied.path.parent, run_id='x'))
  flags = ['--num-actors', 2] if command == 'scale' else []
  assert distacme(command, applied.path, *flags) == 2
  assert 'does not run' in capfd.readouterr().err
  changes = [call for call in kubectl.calls if not call.startswith('get ')]
  assert not changes
  assert applied.read_running() is None


def test_a_dry_run_does_not_touch_the_directory_of_a_run_that_goes_on(
  submitted, kubectl, monkeypatch
):
  folder = submitted.path.parent
  before = records.read_submission(submitted)
  kubectl.answer(going_on(folder))
  refused(folder, 'run goes on in the namespace', dry_run=True)
  kubectl.answer({'get': 'connection refused'})
  refused(folder, 'does not answer: connection refused', dry_run=True)
  assert records.read_submission(submitted) == before
  submitted.end_running()  # then it can be looked at without a cluster
  train(folder, dry_run=True)


def test_a_pod_knows_the_places_of_the_others(submitted, monkeypatch):
  monkeypatch.setenv(kubernetes_engine.POD, 'run-variables-0-abcde')
  place = records.Place('actor/0', 'run-actor-0-fghij', 'run-actor-0', 0.0)
  records.write_place(submitted, place)
  lost = records.Place('actor/1', 'run-actor-1-klmno', 'run-actor-1', 0.0)
  records.write_place(submitted, lost.ended('was lost'))
  states = kubernetes.job_states(submitted)
  assert states == {'actor/0': 'run-actor-0-fghij runs'}
  assert kubernetes.forward(submitted, ['status']) is None


def test_actors_are_in_the_program_before_their_pods_come(submitted, kubectl):
  kubernetes.scale(submitted, 5)
  in_pod, patch = kubectl.calls
  assert in_pod == (
    'exec --namespace default job/run-variables --container worker -- python -m '
    'distacme.deploy.kubernetes_pod /runs/run actors 5'
  )
  assert patch.startswith('patch job/run-actor --namespace default --patch ')
  assert json.loads(patch.partition('--patch ')[2]) == {
    'spec': {'completions': 5, 'parallelism': 5}
  }
  assert 'actor/4' in program_lib.read(submitted)
  kubectl.answer({'exec': 'no such pod'})
  with pytest.raises(ValueError, match='as many actors as before: no such pod'):
    kubernetes.scale(submitted, 6)
  assert len(kubectl.calls) == 3


def test_actors_that_the_cluster_refuses_are_taken_out_of_the_program_again(
  submitted, kubectl
):
  kubernetes.scale(submitted, 5)
  kubectl.answer({'patch': 'quota exceeded'})
  with pytest.raises(ValueError, match='as many .* as before: quota exceeded'):
    kubernetes.scale(submitted, 9)
  told = [call.rpartition(' ')[2] for call in kubectl.calls if 'exec' in call]
  assert told == ['5', '9', '5']
  program = program_lib.read(submitted)
  assert 'actor/4' in program and 'actor/5' not in program
  refusal = {'patch': 'quota exceeded'}
  kubectl.answer(refusal, after_exec={**refusal, 'exec': 'no such pod'})
  with pytest.raises(
    ValueError, match=r'had 5 actors, has 9 now \(no such pod\).*-actors 5$'
  ):
    kubernetes.scale(submitted, 9)


def test_actors_of_a_job_set_stay_as_many(tmp_path, kubectl):
  train(tmp_path, f'{IMAGE}jobset = true')
  directory = run_directory.RunDirectory(tmp_path / 'run')
  with pytest.raises(ValueError, match='in a JobSet is fixed'):
    kubernetes.scale(directory, 3)
  assert kubectl.calls[-3].startswith('delete jobs,jobsets.jobset.x-k8s.io ')
  found = {'metadata': {'name': 'run'}, 'spec': {}}
  kubectl.answer({'get jobsets': {'items': [found]}})
  kubernetes.cancel(directory)
  assert kubectl.calls[-1].startswith('delete jobset run --namespace default ')


def test_jobs_are_cancelled_that_have_not_ended_and_nothing_else(
  submitted, kubectl
):
  jobs = [job('actor'), job('learner'), job('evaluator', ended='Complete')]
  answers = {'get jobs': {'items': jobs}}
  kubectl.answer(answers)
  kubernetes.cancel(submitted)
  assert kubectl.calls[-1] == (
    'delete job run-actor run-learner --namespace default --ignore-not-found '
    '--cascade=foreground --wait'
  )
  kubectl.answer({**answers, 'delete': 'forbidden'})
  with pytest.raises(ValueError, match='could be deleted: forbidden'):
    kubernetes.cancel(submitted)
  kubectl.answer({'get jobs': {'items': [jobs[-1]]}})
  kubernetes.cancel(submitted)
  assert kubectl.calls[-1].startswith('get jobs')


def test_logs_are_those_of_all_pods_of_a_worker(submitted, kubectl):
  command = ' '.join(kubernetes.log_command(submitted, 'actor/1', follow=True))
  assert command == (
    'kubectl logs --namespace default --selector '
    'batch.kubernetes.io/job-name=run-actor,'
    'batch.kubernetes.io/job-completion-index=1 --tail=-1 --follow'
  )


def distacme(*arguments):
  """Runs a command; returns its exit code."""
  with pytest.raises(SystemExit) as exit_:
    cli.main([f'{each}' for each in arguments])
  return exit_.value.code


@pytest.fixture(name='doctor')
def fixture_doctor(tmp_path, kubectl, monkeypatch, capfd):
  """Returns a function from a cluster.toml to the doctor's exit code and words."""
  monkeypatch.setenv('PATH', f'{kubectl.folder}')  # no Slurm either
  path = tmp_path / 'cluster.toml'

  def doctor(text):
    path.write_text(text)
    return distacme('doctor', '--cluster', path), capfd.readouterr().out

  return doctor


def test_the_doctor_asks_for_all_that_a_run_does_in_its_namespace(
  kubectl, doctor
):
  code, out = doctor(f'{IMAGE}namespace = "team-a"')
  assert code == 0
  assert "may do all that a run needs in the namespace 'team-a'" in out
  assert '\nkubernetes works' in out
  calls = kubectl.calls
  assert all(call.endswith(' --namespace team-a') for call in calls)
  asked = [
    call.removeprefix('auth can-i ').partition(' --namespace')[0]
    for call in calls
  ]
  assert {
    'create jobs.batch',
    'create secrets',
    'create persistentvolumeclaims',
    'create pods --subresource=exec',
    'get pods --subresource=log',
  } <= {*asked}
  assert not any('jobset' in each for each in asked)
  doctor(f'{IMAGE}jobset = true')
  assert any('create jobsets' in call for call in kubectl.calls)


@pytest.mark.parametrize('said', ['no', 'no - a rule forbids it'])
def test_the_doctor_names_what_is_refused(kubectl, doctor, said):
  kubectl.answer(
    {
      'auth can-i create secrets': said,
      'auth can-i create pods --subresource=exec': said,
    }
  )
  code, out = doctor(IMAGE)
  assert code == 1
  assert (
    "in the namespace 'default': create pods --subresource=exec, create secrets."
    in out
  )
  assert 'no cluster works' in out


def test_the_doctor_quotes_a_cluster_that_does_not_answer(kubectl, doctor):
  kubectl.answer({'auth': 'no such host'})
  code, out = doctor(IMAGE)
  assert code == 1
  assert 'KubectlError: no such host' in out


def test_the_doctor_says_how_to_get_pyyaml(doctor, monkeypatch):
  monkeypatch.setitem(sys.modules, 'yaml', None)
  code, out = doctor(IMAGE)
  assert code == 1
  assert "pip install 'distacme[kubernetes]'" in out
  assert 'no cluster works' in out


@pytest.mark.parametrize('command', ['status', 'watch', 'logs'])
def test_commands_are_forwarded_to_the_pod_of_the_variable_server(
  submitted, kubectl, capfd, command
):
  kubectl.answer(
    {
      'exec': {'from': 'the pod'},
      'get pods': {'items': [pod('variables', 0, phase='Running')]},
      'get jobs': {'items': [job('variables')]},
    }
  )
  assert distacme(command, submitted.path) == 0
  out = capfd.readouterr().out
  assert 'the pod' in out
  assert ('Running on node2' in out) == (command == 'status')
  (call,) = (call for call in kubectl.calls if call.startswith('exec'))
  assert call == (
    'exec --namespace default job/run-variables --container worker -- distacme '
    f'{command} /runs/run'
  )


def test_what_waits_for_a_node_is_shown_without_any_pod(
  submitted, kubectl, capfd
):
  full = {'type': 'PodScheduled', 'status': 'False', 'message': 'no such node'}
  kubectl.answer(
    {
      'get pods': {
        'items': [pod('variables', 0, phase='Pending', conditions=[full])]
      },
      'get jobs': {'items': [job('variables')]},
    }
  )
  assert distacme('status', submitted.path) == 0
  assert 'Pending (no such node)' in ' '.join(capfd.readouterr().out.split())
  assert not any(call.startswith('exec') for call in kubectl.calls)


def test_a_run_is_stopped_in_order_and_its_end_is_told_here(
  submitted, kubectl, capfd
):
  stop = status_lib.Stop(status_lib.StopReason.INTERRUPTED)
  told = status_lib.Status(seconds=3.0, counts={'env_steps': 7}, stop=stop)
  message = ended_with(exitCode=0, message=json.dumps(told.to_dict()))
  kubectl.answer(
    {
      'get pods': {'items': []},
      'get jobs': {'items': [job('variables')]},
      'exec': {},
    },
    after_exec={
      'get pods': {
        'items': [pod('variables', 0, phase='Succeeded', **message)]
      },
      'get jobs': {'items': [job('variables', ended='Complete')]},
    },
  )
  assert distacme('stop', submitted.path) == 0
  assert '7 environment steps' in capfd.readouterr().out
  (call,) = (call for call in kubectl.calls if call.startswith('exec'))
  assert call.endswith(
    'python -m distacme.deploy.kubernetes_pod /runs/run stop'
  )
  assert not any(call.startswith('delete') for call in kubectl.calls)
  assert submitted.read_running() is None


def test_a_run_whose_server_is_not_there_is_cancelled(
  submitted, kubectl, capfd
):
  kubectl.answer(
    {
      'get pods': {'items': []},
      'get jobs': {'items': [job('variables')]},
      'exec': 'no such pod',
    }
  )
  assert distacme('stop', submitted.path) == 0
  assert 'its jobs are cancelled' in capfd.readouterr().out
  assert any(
    call.startswith('delete job run-variables') for call in kubectl.calls
  )
