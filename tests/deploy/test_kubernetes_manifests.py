"""The manifests of a run: against the schemas, and against what schemas do not show."""

import dataclasses
import pathlib

import jsonschema
import pytest
import yaml

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import kubernetes_manifests
from distacme.deploy import yaml_text
from distacme.programs import program as program_lib
from distacme.programs import run_config
from tests.deploy import manifest_checks

validator = pytest.importorskip('kubernetes_validate.utils')

GOLDEN = pathlib.Path(__file__).with_name('kubernetes_golden.yaml')
# The first has all that the manifests use; the last ones are maintained today.
VERSIONS = ('1.29', '1.31', '1.33', '1.35', '1.36', '1.37')
SETTINGS = {
  'plain': '',
  'gpu': """
    [learner]
    gpus = 2
    [kubernetes]
    storage_class = "nfs"
    namespace = "team-a"
    [kubernetes.learner]
    node_selector = {pool = "gpu"}
    tolerations = [{key = "gpu", operator = "Exists", effect = "NoSchedule"}]
  """,
  'queue': '[kubernetes]\nqueue = "main"',
  'jobset': '[kubernetes]\njobset = true\nqueue = "main"',
}
FILES = {
  'id': '12345678901e45',
  'config.json': '{\n  "run": {}\n}\n',
  'cluster.toml': '[learner]\ncpus = 4\n',
}
SECRETS = {'key.pem': 'PRIVATE\nCERTIFICATE\n', 'token': '0123'}


def described(settings='', name='catch', acts=True, **run):
  """Returns a run, with an image."""
  cluster = cluster_lib.parse(settings)
  kubernetes = dataclasses.replace(
    cluster.kubernetes, image='registry.example/distacme:1'
  )
  made = run_config.RunConfig(
    agent='dqn', env='catch', mode='kubernetes', **run
  )
  return kubernetes_manifests.Run(
    name,
    'f00d',
    'me@here:/home/me/runs/catch',
    program_lib.make_program(made, acts),
    dataclasses.replace(cluster, kubernetes=kubernetes),
  )


def documents(run):
  """Returns all objects of a run, as they come back from their files."""
  objects = [
    kubernetes_manifests.secret(run, SECRETS),
    *kubernetes_manifests.objects(run, FILES),
  ]
  return list(yaml.safe_load_all(yaml_text.dump('A run.', objects)))


@pytest.fixture(name='plain')
def fixture_plain():
  return documents(described())


def check_schema(document, version):
  """Refuses what an API server of that version refuses for its form.

  A kind or a version of a kind that has no schema is an error here, and not only a
  warning as on the validator's command line.
  """
  if document['kind'] == 'JobSet':
    jsonschema.validate(document, JOBSET)
    for job in manifest_checks.jobs([document]):
      validator.validate(job, version, strict=True)
  else:
    validator.validate(document, version, strict=True)


# What is used of jobset.x-k8s.io/v1alpha2; its Jobs have the schema of Jobs.
JOBSET = {
  'type': 'object',
  'additionalProperties': False,
  'required': ['apiVersion', 'kind', 'metadata', 'spec'],
  'properties': {
    'apiVersion': {'const': 'jobset.x-k8s.io/v1alpha2'},
    'kind': {'const': 'JobSet'},
    'metadata': {'type': 'object'},
    'spec': {
      'type': 'object',
      'additionalProperties': False,
      'properties': {
        'suspend': {'type': 'boolean'},
        'network': {
          'type': 'object',
          'additionalProperties': False,
          'properties': {
            'enableDNSHostnames': {'type': 'boolean'},
            'subdomain': {'type': 'string'},
            'publishNotReadyAddresses': {'type': 'boolean'},
          },
        },
        'successPolicy': {
          'type': 'object',
          'additionalProperties': False,
          'required': ['operator'],
          'properties': {
            'operator': {'enum': ['All', 'Any']},
            'targetReplicatedJobs': {
              'type': 'array',
              'items': {'type': 'string'},
            },
          },
        },
        'failurePolicy': {
          'type': 'object',
          'additionalProperties': False,
          'properties': {'maxRestarts': {'type': 'integer'}},
        },
        'replicatedJobs': {
          'type': 'array',
          'items': {
            'type': 'object',
            'additionalProperties': False,
            'required': ['name', 'template'],
            'properties': {
              'name': {'type': 'string'},
              'replicas': {'type': 'integer'},
              'template': {
                'type': 'object',
                'additionalProperties': False,
                'required': ['spec'],
                'properties': {
                  'metadata': {'type': 'object'},
                  'spec': {'type': 'object'},
                },
              },
            },
          },
        },
      },
    },
  },
}


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('settings', SETTINGS)
def test_every_object_has_the_form_of_its_kind(settings, version):
  run = described(SETTINGS[settings])
  for document in [*documents(run), kubernetes_manifests.reader(run)]:
    check_schema(document, version)


def _misspell(documents):
  container(documents)['resource'] = {}


def _mistype(documents):
  job(documents)['spec']['completions'] = '2'


def _leave_out(documents):
  del container(documents)['name']


def _outdate(documents):
  documents[3]['apiVersion'] = 'networking.k8s.io/v1beta1'


def _misspell_below_a_job_set(documents):
  documents[-1]['spec']['network']['dns'] = True


@pytest.mark.parametrize(
  'settings, break_it',
  [
    ('plain', _misspell),
    ('plain', _mistype),
    ('plain', _leave_out),
    ('plain', _outdate),
    ('jobset', _misspell),
    ('jobset', _misspell_below_a_job_set),
  ],
)
def test_a_broken_form_is_found(settings, break_it):
  broken = documents(described(SETTINGS[settings]))
  break_it(broken)
  with pytest.raises(
    (
      jsonschema.ValidationError,
      validator.ValidationError,
      validator.SchemaNotFoundError,
    )
  ):
    for document in broken:
      check_schema(document, VERSIONS[-1])


@pytest.mark.parametrize('settings', SETTINGS)
def test_objects_refer_to_what_is_there(settings):
  found = documents(
    described(SETTINGS[settings], num_actors=1000, num_replay_servers=2)
  )
  assert not list(manifest_checks.faults(found))
  assert job(found)['spec']['completions'] == 1000
  assert job(found, 'replay')['spec']['completions'] == 2


@pytest.mark.parametrize(
  'run',
  [described(acts=False), described(replay_in_learner=True)],
  ids=['without actors', 'replay in the learner'],
)
def test_programs_of_other_forms_have_jobs_for_what_they_have(run):
  found = documents(run)
  assert not list(manifest_checks.faults(found))
  kinds = [d['metadata']['name'] for d in found if d['kind'] == 'Job']
  assert 'catch-replay' not in kinds
  assert len(kinds) == len({spec.kind for spec in run.program.owners()})


def job(documents, kind='actor'):
  """Returns the Job of a kind, also where it is below a JobSet."""
  for document in manifest_checks.jobs(documents):
    labels = document['metadata']['labels']
    if labels['app.kubernetes.io/component'] == kind:
      return document
  raise AssertionError(kind)


def pod(documents):
  return job(documents)['spec']['template']['spec']


def container(documents):
  return pod(documents)['containers'][0]


def named(documents, kind):
  return next(d for d in documents if d['kind'] == kind)


BROKEN = {
  "'Run1_Actor' is no label": lambda d: job(d)['metadata'].update(
    name='Run1_Actor'
  ),
  'too long': lambda d: job(d)['metadata'].update(name='a' * 60),
  'begins with a letter': lambda d: named(d, 'Service')['metadata'].update(
    name='1run'
  ),
  'no value of a label': lambda d: named(d, 'Service')['spec'][
    'selector'
  ].update(run='-'),
  "'1GiB' is no quantity": lambda d: container(d)['resources']['limits'].update(
    memory='1GiB'
  ),
  '80000 is no port': lambda d: container(d).update(
    ports=[{'containerPort': 80000}]
  ),
  'several namespaces': lambda d: job(d)['metadata'].update(namespace='x'),
  'two objects have one name': lambda d: d.append(d[-1]),
  'is no text': lambda d: named(d, 'ConfigMap')['data'].update(id=1),
  'mounts no volume': lambda d: pod(d)['volumes'].pop(),
  'mounts nowhere': lambda d: container(d)['volumeMounts'].pop(),
  'two volumes at one path': lambda d: container(d)['volumeMounts'][0].update(
    mountPath='/tmp'
  ),
  'no ConfigMap is called': lambda d: d.remove(named(d, 'ConfigMap')),
  'no Secret is called': lambda d: d.remove(named(d, 'Secret')),
  'no PersistentVolumeClaim is called': lambda d: d.remove(
    named(d, 'PersistentVolumeClaim')
  ),
  'no Service is called': lambda d: pod(d).update(subdomain='x'),
  'is not headless': lambda d: named(d, 'Service')['spec'].pop('clusterIP'),
  'not ready': lambda d: named(d, 'Service')['spec'].pop(
    'publishNotReadyAddresses'
  ),
  'does not select it': lambda d: job(d)['spec']['template']['metadata'][
    'labels'
  ].pop('app.kubernetes.io/instance'),
  'no NetworkPolicy guards it': lambda d: d.remove(named(d, 'NetworkPolicy')),
  'its NetworkPolicy is for {}': lambda d: named(d, 'NetworkPolicy')[
    'spec'
  ].update(ingress=[{}]),
  'restartPolicy is Always': lambda d: pod(d).update(restartPolicy='Always'),
  'have no numbers': lambda d: job(d)['spec'].pop('completionMode'),
  'run at once': lambda d: job(d)['spec'].update(parallelism=1),
  'which there is not': lambda d: container(d).update(name='other'),
  'exit code 0': lambda d: job(d)['spec']['podFailurePolicy']['rules'][1][
    'onExitCodes'
  ].update(values=[0]),
  'are root': lambda d: pod(d)['securityContext'].update(runAsUser=0),
  'account at the cluster': lambda d: pod(d).pop(
    'automountServiceAccountToken'
  ),
  'its root is writable': lambda d: container(d)['securityContext'].pop(
    'readOnlyRootFilesystem'
  ),
  'it has capabilities': lambda d: container(d)['securityContext'].pop(
    'capabilities'
  ),
  'may become root': lambda d: container(d)['securityContext'].pop(
    'allowPrivilegeEscalation'
  ),
  'limits are not its requests': lambda d: container(d)['resources'][
    'limits'
  ].update(cpu='8'),
  'stands twice': lambda d: container(d)['env'].append(container(d)['env'][-1]),
  'no variable': lambda d: container(d)['env'].append({'name': '1-A'}),
  '/runs/catch is not writable': lambda d: container(d)['volumeMounts'][
    0
  ].update(mountPath='/elsewhere'),
}


@pytest.mark.parametrize('sentence', BROKEN)
def test_a_broken_reference_is_found(plain, sentence):
  assert not list(manifest_checks.faults(plain))
  BROKEN[sentence](plain)
  assert any(sentence in fault for fault in manifest_checks.faults(plain))


def test_only_the_pod_of_the_variable_server_sees_the_secrets(plain):
  for document in manifest_checks.jobs(plain):
    volumes = document['spec']['template']['spec']['volumes']
    kind = document['metadata']['labels']['app.kubernetes.io/component']
    assert any('secret' in each for each in volumes) == (kind == 'variables')


def test_a_pod_has_time_to_save_and_a_gpu_only_where_it_was_asked_for():
  found = documents(described(SETTINGS['gpu']))
  for document in manifest_checks.jobs(found):
    kind = document['metadata']['labels']['app.kubernetes.io/component']
    spec = document['spec']['template']['spec']
    assert spec['terminationGracePeriodSeconds'] > 30
    limits = spec['containers'][0]['resources']['limits']
    assert limits.get('nvidia.com/gpu') == ('2' if kind == 'learner' else None)
    assert ('nodeSelector' in spec) == (kind == 'learner')


def test_a_queue_admits_what_is_suspended_until_then():
  label = 'kueue.x-k8s.io/queue-name'
  for settings, kind in (('queue', 'Job'), ('jobset', 'JobSet')):
    found = [
      d for d in documents(described(SETTINGS[settings])) if d['kind'] == kind
    ]
    assert found
    for document in found:
      assert document['metadata']['labels'][label] == 'main'
      assert document['spec']['suspend'] is True


@pytest.mark.parametrize(
  'path, name',
  [
    ('/runs/dqn-Catch_1', 'dqn-catch-1'),
    ('20261129-run', 'run-20261129-run'),
    ('ümlaut', 'mlaut'),
    ('***', 'run'),
    ('-a-', 'a'),
  ],
)
def test_the_name_of_a_run_is_that_of_its_directory(path, name):
  assert kubernetes_manifests.name_of(pathlib.PurePath(path)) == name
  assert manifest_checks.LABEL.fullmatch(name)


def test_long_names_are_cut_and_told_apart():
  names = {
    kubernetes_manifests.name_of(pathlib.PurePath('x' * 60 + end))
    for end in ('1', '2')
  }
  assert len(names) == 2
  assert {len(name) for name in names} == {40}
  assert all(manifest_checks.LABEL.fullmatch(name) for name in names)


def test_a_run_of_a_thousand_actors_fits_where_kubectl_keeps_what_it_applied():
  # In an annotation, of which there may be 256 KiB.
  for document in documents(described(num_actors=1000)):
    assert len(str(document)) < 1 << 16


def test_texts_stay_texts_for_readers_of_other_dialects():
  text = yaml_text.dump('', [{'id': '12345678901e45', 'number': 1, 'no': 'no'}])
  assert "id: '12345678901e45'" in text
  assert "no': 'no'" in text
  assert yaml.safe_load(text) == {
    'id': '12345678901e45',
    'number': 1,
    'no': 'no',
  }


def test_manifests_are_those_that_were_read_over(tmp_path):
  """Where a change is meant, read the difference, and copy the file it names.

  Of the Jobs two, which have all that Jobs have.
  """
  run = described(SETTINGS['gpu'])
  objects = [
    each
    for each in kubernetes_manifests.objects(run, FILES)
    if each['kind'] != 'Job'
    or each['metadata']['name'] in ('catch-variables', 'catch-learner')
  ]
  new = tmp_path / GOLDEN.name
  new.write_text(yaml_text.dump('A run.', objects))
  assert new.read_text() == GOLDEN.read_text(), f'diff {new} {GOLDEN}'
