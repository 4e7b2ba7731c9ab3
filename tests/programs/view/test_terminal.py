"""A run whose terminal is closed ends in order, or goes on; it never fails for it."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from distacme.programs.view import terminal
from tests.programs import launching

SMALL = (
  '--hidden-sizes', '8',
  '--min-replay-size', '100',
  '--num-actors', '1',
  '--max-seconds', '80',
)  # fmt: skip

# In the process that becomes the run: a function to be called there would fork this
# one, in which JAX may have threads.
_TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.Handlers(int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(name='in_terminal')
def fixture_in_terminal(tmp_path):
  """Starts runs in a terminal of their own; closes it, too."""
  runs = []

  def in_terminal(*flags, mode, hangup=signal.SIG_DFL):
    keyboard, screen = pty.openpty()
    run_dir = tmp_path / f'run{len(runs)}'
    train = ['train', '--env', launching.CATCH, '--mode', mode, *SMALL, *flags]
    run = launching.Run(
      run_dir,
      command=[
        *(sys.executable, '-c', _TAKE_TERMINAL, int(hangup)),
        *(launching.SCRIPT, *train, '--run-dir', run_dir),
      ],
      stdin=screen,
      stdout=screen,
      stderr=screen,
      start_new_session=True,
    )
    os.close(screen)
    runs.append(run)
    return run, lambda: os.close(keyboard)

  yield in_terminal
  for run in runs:
    run.__exit__()


@pytest.mark.parametrize(
  'mode',
  [
    'local',
    pytest.param(
      'processes', marks=[pytest.mark.program, pytest.mark.launchpad]
    ),
  ],
)
def test_a_closed_terminal_ends_the_run_as_sigterm_does(in_terminal, mode):
  run, close = in_terminal(mode=mode)
  run.wait_until_learning()
  workers = run.family()
  for worker in workers:  # as the kernel does to all in the foreground
    worker.send_signal(signal.SIGHUP)
  close()
  # A shell sends one of its own.
  run.process.send_signal(signal.SIGHUP)
  code, _ = run.wait()
  assert code == 143
  assert run.summary.stop.reason == 'terminated'
  assert not run.summary.failures
  assert not run.summary.restarts
  assert not run.left_after(0.5)
  if mode == 'processes':
    assert any((run.run_dir / 'checkpoints').iterdir())


def test_with_hangups_ignored_the_run_goes_on_to_its_end(in_terminal):
  run, close = in_terminal(
    '--max-env-steps', '3000', mode='local', hangup=signal.SIG_IGN
  )
  run.wait_until_learning()
  close()
  assert run.wait()[0] == 0
  assert run.summary.stop.reason == 'step_limit'
  assert 'Traceback' not in (run.run_dir / 'logs' / 'all').read_text()


def test_who_reads_the_output_may_end_before_the_run(tmp_path):
  flags = (*SMALL, '--max-env-steps', '500')
  with launching.Run(
    tmp_path / 'run', *flags, mode='local', stdout=subprocess.PIPE
  ) as run:
    assert run.process.stdout.readline().startswith(b'run directory: ')
    run.process.stdout.close()
    assert run.wait()[0] == 0
    assert run.summary.stop.reason == 'step_limit'
    assert 'Error' not in run.output  # stderr


@pytest.mark.parametrize('closed', ['>&-', '2>&-', '<&- >&- 2>&-'])
def test_without_stdout_no_file_gets_its_number(tmp_path, closed):
  code = (
    'import os, sys\n'
    'from distacme.programs.view import terminal\n'
    'terminal.open_missing()\n'
    "assert open('file', 'w').fileno() > 2\n"
    "print('out', flush=True)\n"
    "print('err', file=sys.stderr, flush=True)\n"
  )
  (tmp_path / 'code.py').write_text(code)
  command = ['sh', '-c', f'exec {sys.executable} code.py {closed}']
  done = subprocess.run(command, cwd=tmp_path, timeout=60)
  assert done.returncode == 0
  assert (tmp_path / 'file').read_text() == ''


def test_what_cannot_be_written_is_dropped_from_then_on(monkeypatch):
  reader, writer = os.pipe()
  with open(writer, 'w') as stream:
    monkeypatch.setattr(sys, 'stdout', stream)
    terminal.say('heard')
    assert os.read(reader, 100) == b'heard\n'
    os.close(reader)
    terminal.say('unheard')
    terminal.console().print('unheard')
    print('unheard')
    terminal.flush()
