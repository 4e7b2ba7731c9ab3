"""What of a peer's texts a run keeps."""

from distacme.rpc import messages
from distacme.variables import requests


def test_the_reason_of_a_stop_is_short_text():
  stop = requests.stop(
    messages.pack(
      {
        'reason': 'failed',
        'detail': 'a' * 10**6 + '\x1b]',
        'worker': 'b' * 9999,
      }
    )
  )
  assert stop.detail == 'a' * (20_000 - 2) + '\ufffd]'
  assert stop.worker == 'b' * 200


def test_names_of_a_report_command_no_terminal():
  report = requests.report(
    messages.pack(
      {
        'worker': '\x1b[2J',
        'session': 's',
        'sequence': 1,
        'alive': True,
        'counts': {},
        'metrics': [{'loss\n\u202e': 1.0, 'x' * 10**6: 2.0}],
      }
    )
  )
  assert report['worker'] == '\ufffd[2J'
  assert report['metrics'] == [{'loss\n\ufffd': 1.0, 'x' * 200: 2.0}]
