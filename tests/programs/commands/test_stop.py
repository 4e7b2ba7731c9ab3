"""`distacme stop`, `status` and `logs` of runs on this host."""

import pathlib

import pytest

from distacme.programs import cli
from tests.programs import launching

LONG = ('--max-env-steps', '100000000', '--eval-period', '100000')


def command(capsys, *arguments):
  with pytest.raises(SystemExit) as exit_:
    cli.main(list(map(str, arguments)))
  captured = capsys.readouterr()
  return exit_.value.code, captured.out + captured.err


@pytest.mark.program
@pytest.mark.parametrize('mode', ['local', 'processes'])
def test_a_run_is_stopped_in_order(tmp_path, capsys, mode):
  with launching.Run(tmp_path / 'run', *LONG, mode=mode) as run:
    run.wait_until_learning()
    code, said = command(capsys, 'status', run.run_dir)
    assert code == 0 and 'learner' in said
    code, said = command(capsys, 'stop', run.run_dir)
    assert code == 0, said
    assert 'interrupted' in said
    assert run.wait()[0] == 130
    assert run.summary.stop.reason == 'interrupted'
    assert not (run.run_dir / 'stop').exists()
  code, said = command(capsys, 'status', '--wait', run.run_dir)
  assert code == 130
  assert 'interrupted' in said
  code, said = command(capsys, 'stop', run.run_dir)
  assert code == 2 and 'nothing to stop' in said
  code, said = command(capsys, 'logs', run.run_dir)
  assert code == 0
  if mode == 'processes':
    assert '==> learner/0 <==' in said


def test_an_ended_run_has_its_own_exit_code(run_dir, capsys):
  code, said = command(capsys, 'status', run_dir)
  assert code == 0
  assert 'step_limit' in said


def test_a_request_to_an_earlier_run_does_not_stop_a_later_one(tmp_path):
  run_dir = tmp_path / 'run'
  run_dir.mkdir()
  from distacme.run import run_directory

  directory = run_directory.RunDirectory(run_dir)
  directory.stop_request.touch()
  with directory.running():
    assert not directory.stop_request.exists()
    directory.stop_request.touch()
  assert not directory.stop_request.exists()


@pytest.mark.parametrize('name', ['status', 'stop', 'logs'])
def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys, name):
  code, said = command(capsys, name, tmp_path)
  assert code == 2
  assert 'is no run directory' in said


@pytest.mark.program
def test_logs_of_unknown_workers_are_refused(tmp_path, capsys):
  flags = f'--env {launching.CATCH} --num-actors 1 --max-env-steps 200'
  run_dir = pathlib.Path(tmp_path / 'run')
  with launching.Run(run_dir, *flags.split()) as run:
    run.wait()
  code, said = command(capsys, 'logs', run_dir, 'actor/3')
  assert code == 2
  assert "no worker 'actor/3'" in said and 'actor/0' in said
  code, said = command(capsys, 'logs', run_dir, 'actor/0')
  assert code == 0
