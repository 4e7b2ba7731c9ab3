"""Which accelerators a worker sees, tried where there are none."""

import json
import os
import subprocess
import sys
import threading

import jax
import pytest

from distacme.programs import program
from distacme.programs import run_config
from distacme.programs.workers import devices
from tests.programs import launching


def in_a_process(code, **environment):
  """Runs `code` as a worker's process would; returns what it prints last."""
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
  'given, numbers, left',
  [
    (None, [1, 3], '1,3'),
    ('4,5,6', [0, 2], '4,6'),
    ('GPU-a,GPU-b', [1], 'GPU-b'),
  ],
)
def test_numbers_count_among_what_the_host_gave(given, numbers, left):
  environment = {} if given is None else {'CUDA_VISIBLE_DEVICES': given}
  assert devices.visible(numbers, environment) == {'CUDA_VISIBLE_DEVICES': left}


def test_more_than_the_host_gave_is_refused():
  with pytest.raises(
    ValueError, match="accelerator 2 is asked for, .*='4,5' leaves 2"
  ):
    devices.visible([0, 2], {'CUDA_VISIBLE_DEVICES': '4,5'})


def test_the_learner_takes_all_that_its_process_sees():
  seen = in_a_process(
    'import json\n'
    'from distacme.programs.workers import devices\n'
    'print(json.dumps(len(devices.for_learner((), own_process=True))))',
    XLA_FLAGS='--xla_force_host_platform_device_count=3',
    JAX_PLATFORMS='cpu',
  )
  assert seen == 3


THREE = '--xla_force_host_platform_device_count=3'


@pytest.mark.parametrize(
  ('batch_size', 'accelerators', 'asked'),
  [(64, '0,1', 0), (63, '0,1', 1), (64, '0,1,2', 1), (64, None, 0)],
)
def test_a_batch_is_split_over_the_devices_that_the_learner_will_find(
  monkeypatch, batch_size, accelerators, asked
):
  environment = {**os.environ, 'XLA_FLAGS': THREE, 'JAX_PLATFORMS': 'cpu'}
  if accelerators is not None:
    environment['CUDA_VISIBLE_DEVICES'] = accelerators
  count_in, counts = devices._count_in, []

  def count(environment):
    counts.append(count_in(environment))
    return counts[-1]

  monkeypatch.setattr(devices, '_count_in', count)
  if batch_size == 64 and asked:
    with pytest.raises(ValueError, match='by the 3 devices of the learner'):
      devices.check_split(batch_size, (), environment)
  else:
    devices.check_split(batch_size, (), environment)
  assert counts == [3] * asked


def test_a_batch_is_split_over_the_devices_of_this_process(monkeypatch):
  monkeypatch.setattr(jax, 'local_devices', lambda: range(3))
  with pytest.raises(ValueError, match='by the 3 devices of the learner'):
    devices.check_split(64, (), None)
  devices.check_split(64, (0, 1), None)


def test_a_process_without_jax_is_no_reason_to_refuse():
  assert devices._count_in({'PYTHONHOME': '/dev/null'}) == 1


def test_a_learner_that_names_accelerators_sees_no_others():
  refused, visible = in_a_process(
    'import json, os\n'
    'from distacme.programs.workers import devices\n'
    'try:\n'
    '  devices.for_learner((1, 2), own_process=True)\n'
    'except ValueError as error:\n'
    "  print(json.dumps((str(error), os.environ['CUDA_VISIBLE_DEVICES'])))",
    CUDA_VISIBLE_DEVICES='5,6,7',
    JAX_PLATFORMS='cpu',
  )
  assert visible == '6,7'
  assert 'learner/0 is given accelerators' in refused
  assert 'JAX finds 0 ([CpuDevice(id=0)])' in refused


def test_an_actor_with_an_accelerator_may_use_more_than_the_cpu():
  refused, visible, platforms = in_a_process(
    'import json, os, jax\n'
    'from distacme.programs.workers import devices\n'
    'try:\n'
    "  with devices.for_acting('actor/1', 3, own_process=True): pass\n"
    'except ValueError as error:\n'
    "  print(json.dumps((str(error), os.environ['CUDA_VISIBLE_DEVICES'],\n"
    '    jax.config.jax_platforms)))',
    JAX_PLATFORMS='cpu',
  )
  assert (visible, platforms) == ('3', None)
  assert 'actor/1 is given accelerators' in refused


def test_an_actor_without_one_computes_on_the_cpu():
  with devices.for_acting('actor/0', None, own_process=True):
    pass  # its launcher has seen to it:
  workers = program.make_program(run_config.RunConfig())
  for name in ('actor/0', 'evaluator/0'):
    assert workers[name].env['JAX_PLATFORMS'] == 'cpu'
  assert 'JAX_PLATFORMS' not in workers['learner/0'].env
  # As a thread beside a learner it keeps to the CPU by itself.
  used = []

  def act():
    with devices.for_acting('actor/0', None, own_process=False):
      used.append(jax.config.jax_default_device)

  thread = threading.Thread(target=act)
  thread.start()
  thread.join()
  assert used == [jax.local_devices(backend='cpu')[0]]
  assert jax.config.jax_default_device is None


def test_actors_are_given_accelerators_in_turn():
  run = run_config.RunConfig(
    num_actors=4, learner_devices=(0,), actor_devices=(2, 1)
  )
  assert [run.actor_device(i) for i in range(4)] == [2, 1, None, None]


@pytest.mark.program
def test_a_run_without_the_accelerators_it_names_says_so(tmp_path):
  with launching.Run(
    tmp_path / 'run', '--learner-devices', '0', '--max-seconds', '60'
  ) as run:
    code, _ = run.wait()
    assert code == 1
    assert 'learner/0 is given accelerators' in run.output
    assert not run.left_after(0.5)
