"""`distacme plot`: what lies on a curve, and which runs share one."""

import json
import shutil
import sys
import threading

import numpy as np
import pytest

from distacme.agents import dqn
from distacme.programs import cli
from distacme.programs.view import curve_groups
from distacme.programs.view import plotting
from distacme.run import curves as curves_lib
from distacme.run import metrics


@pytest.fixture(name='make_run')
def fixture_make_run(tmp_path):
  def make_run(
    name,
    points,
    seed=0,
    learning_rate=1e-3,
    env='bsuite:catch/0',
    **settings,
  ):
    path = tmp_path / name
    run = {'agent': 'dqn', 'env': env, 'seed': seed, **settings}
    agent = {'learning_rate': learning_rate}
    sink = metrics.MetricsSink(path, tensorboard=False)
    for env_steps, mean_return in points:
      counts = {'env_steps': env_steps, 'learner_steps': 100 * env_steps}
      sink.write('evaluator/0', 1.0, counts, {'mean_return': mean_return})
      sink.write('learner/0', 1.0, counts, {'loss': 1.0})
    sink.close()
    (path / 'config.json').write_text(json.dumps({'run': run, 'agent': agent}))
    return path

  return make_run


def run(capsys, *arguments):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['plot', *map(str, arguments)])
  captured = capsys.readouterr()
  return exit_.value.code, captured.out + captured.err


def test_a_run_becomes_a_png(capsys, run_dir, tmp_path):
  pytest.importorskip('matplotlib')
  output = tmp_path / 'catch.png'
  code, text = run(capsys, run_dir, '--output', output)
  assert code == 0, text
  assert text == f'{output}\n'
  assert output.read_bytes().startswith(b'\x89PNG')


def test_several_groups_fit_into_one_png(capsys, make_run, tmp_path):
  pytest.importorskip('matplotlib')
  paths = [
    make_run('a', [(10, 0.0), (20, 1.0)]),
    make_run('b', [(30, 0.0), (40, 1.0)], seed=1),  # shares no steps with a
    make_run('c', [(10, 0.5)], learning_rate=1.0),
  ]
  code, text = run(capsys, *paths, '--output', tmp_path / 'curves.png')
  assert code == 0, text


def test_every_environment_has_a_panel(make_run, tmp_path):
  pytest.importorskip('matplotlib')
  paths = [
    make_run('a', [(10, 0.0), (20, 1.0)]),
    make_run('b', [(10, 100.0), (20, 200.0)], env='gymnasium:CartPole-v1'),
  ]
  heights = []
  for runs in (paths[:1], paths):
    plotting.draw(curve_groups.grouped(runs), tmp_path / 'curves.png')
    header = (tmp_path / 'curves.png').read_bytes()[16:24]  # of a PNG
    heights.append(int.from_bytes(header[4:], 'big'))
  assert heights == [5 * 120, 9 * 120]


def test_a_curve_is_the_evaluated_return_over_env_steps(make_run):
  curve = curves_lib.read_curve(make_run('a', [(10, -1.0), (20, 0.5)]))
  np.testing.assert_array_equal(curve.steps, [10, 20])
  np.testing.assert_array_equal(curve.returns, [-1.0, 0.5])


def test_a_curve_may_be_over_learner_steps(make_run):
  path = make_run('a', [(10, -1.0), (20, 0.5)], clock='learner_steps')
  curve = curves_lib.read_curve(path)
  np.testing.assert_array_equal(curve.steps, [1000, 2000])
  assert curve.clock == 'learner_steps'


def test_runs_of_different_clocks_do_not_share_a_panel(
  make_run, tmp_path, monkeypatch
):
  figure = pytest.importorskip('matplotlib.figure')
  seen = []
  monkeypatch.setattr(
    figure.Figure,
    'savefig',
    lambda drawing, *args, **kwargs: seen.extend(drawing.axes),
  )
  paths = [
    make_run('a', [(10, 0.0), (20, 1.0)]),  # of before there were clocks
    make_run('b', [(10, 0.0), (20, 1.0)], clock='learner_steps'),
    make_run('c', [(10, 0.0)], clock='env_steps', seed=1),
  ]
  groups = curve_groups.grouped(paths)
  assert [len(group.curves) for group in groups] == [2, 1]
  assert curve_groups.label(groups[1], groups) == 'dqn'
  plotting.draw(groups, tmp_path / 'curves.png')
  assert [axes.get_xlabel() for axes in seen] == [
    'environment steps',
    'learner steps',
  ]


def test_what_a_resumption_lost_is_left_out(make_run):
  points = [(10, 1.0), (20, 2.0), (30, 3.0), (20, 4.0), (40, 5.0)]
  curve = curves_lib.read_curve(make_run('a', points))
  np.testing.assert_array_equal(curve.steps, [10, 20, 40])
  np.testing.assert_array_equal(curve.returns, [1.0, 4.0, 5.0])


def test_seeds_of_the_same_settings_are_grouped(make_run):
  paths = [
    make_run('a', [(10, 0.0)], seed=0),
    make_run('b', [(10, 1.0)], seed=1),
    make_run('c', [(10, 2.0)], learning_rate=1.0),
  ]
  groups = curve_groups.grouped([*paths, paths[0]])
  assert [len(group.curves) for group in groups] == [2, 1]


def test_a_setting_that_an_older_run_does_not_know_is_at_its_default(make_run):
  old = make_run('old', [(10, 0.0)])
  new = make_run('new', [(10, 1.0)], seed=1, demonstrations='')
  config = json.loads((new / 'config.json').read_text())
  config['agent']['batch_size'] = dqn.Config.batch_size
  (new / 'config.json').write_text(json.dumps(config))
  other = make_run('other', [(10, 2.0)], demonstrations='my:episodes')
  groups = curve_groups.grouped([old, new, other])
  assert [len(group.curves) for group in groups] == [2, 1]


def test_a_directory_of_runs_stands_for_all_that_were_evaluated(make_run):
  for seed in (10, 2):
    make_run(f'all/seed{seed}', [(10, float(seed))], seed=seed)
  make_run('all/seed3', [], seed=3)
  (group,) = curve_groups.grouped([make_run('all/seed0', [(10, 0.0)]).parent])
  assert [curve.returns[0] for curve in group.curves] == [0.0, 2.0, 10.0]


def test_a_directory_of_runs_without_evaluations_is_named(capsys, make_run):
  path = make_run('all/seed0', []).parent
  code, text = run(capsys, path)
  assert code == 2
  assert f'none of the 1 runs in {path} has been evaluated yet' in text


def test_a_label_says_what_tells_a_group_from_the_others(make_run):
  paths = [
    make_run('a', [(10, 0.0)], seed=0),
    make_run('b', [(10, 1.0)], seed=1),
    make_run('c', [(10, 2.0)], learning_rate=1.0),
  ]
  alone = curve_groups.grouped(paths[:1])
  assert curve_groups.label(alone[0], alone) == 'dqn'
  first, second = groups = curve_groups.grouped(paths)
  assert curve_groups.label(first, groups) == (
    'dqn, learning_rate=0.001 (2 runs: mean, lowest to highest)'
  )
  assert curve_groups.label(second, groups) == 'dqn, learning_rate=1.0'


def test_the_mean_spans_what_all_runs_span():
  curves = [
    curves_lib.Curve(
      np.array([0, 10, 20]), np.array([0.0, 1.0, 2.0]), 'env_steps'
    ),
    curves_lib.Curve(np.array([5, 15]), np.array([3.0, 5.0]), 'env_steps'),
  ]
  steps, returns = curve_groups.common(curves)
  np.testing.assert_array_equal(steps, [5, 10, 15])
  np.testing.assert_allclose(returns, [[0.5, 1.0, 1.5], [3.0, 4.0, 5.0]])


def test_without_matplotlib_the_message_names_the_extra(
  capsys, make_run, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  code, text = run(capsys, make_run('a', [(10, 0.0)]), '--output', 'a.png')
  assert code == 2
  assert "Run: pip install 'distacme[plot]'" in text


@pytest.mark.parametrize('there', [True, False])
def test_what_draws_is_imported_in_a_thread(monkeypatch, there):
  if there:
    pytest.importorskip('matplotlib')
    monkeypatch.delitem(sys.modules, 'matplotlib.figure', raising=False)
  else:
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
  plotting.prepare.__wrapped__()
  for thread in threading.enumerate():
    if thread.name == 'import to draw':
      thread.join()
  if there:
    assert 'matplotlib.figure' in sys.modules


def test_a_run_without_evaluations_is_named(capsys, make_run):
  path = make_run('a', [])
  code, text = run(capsys, path)
  assert code == 2
  assert f'{path} has not been evaluated yet' in text


@pytest.mark.parametrize(
  'output, sentence',
  [
    ('curves.pdf', "output must be a .png file, got 'curves.pdf'"),
    ('nowhere/curves.png', 'nowhere is no directory'),
  ],
)
def test_an_impossible_output_is_refused(capsys, run_dir, output, sentence):
  code, text = run(capsys, run_dir, '--output', output)
  assert code == 2
  assert sentence in text


def test_a_broken_run_directory_names_itself(capsys, tmp_path):
  shutil.rmtree(tmp_path / 'gone', ignore_errors=True)
  code, text = run(capsys, tmp_path / 'gone')
  assert code == 2
  assert f'{tmp_path / "gone"} is no run directory' in text
