"""A warning is said once a run, also by the second run of a process."""

from distacme.run import notices


def test_a_warning_is_said_once_until_it_is_forgotten(caplog):
  for _ in range(2):
    notices.forget()
    for _ in range(3):
      notices.warn_once('the disk is full')
  assert caplog.messages == ['the disk is full'] * 2
