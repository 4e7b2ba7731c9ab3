"""What a process may open, which is asked for before it is needed."""

import resource

import pytest

from distacme.run import descriptors


@pytest.fixture(name='limits')
def fixture_limits(monkeypatch):
  """Soft and hard limit of this process, which are not changed really."""
  limits = [256, 1000]

  def change(_, new):
    limits[:] = new

  monkeypatch.setattr(resource, 'getrlimit', lambda _: tuple(limits))
  monkeypatch.setattr(resource, 'setrlimit', change)
  return limits


@pytest.mark.parametrize(
  ('asked', 'allowed', 'soft'),
  [(100, 100, 256), (256, 256, 256), (900, 900, 900), (2000, 1000, 1000)],
)
def test_as_many_are_allowed_as_the_system_grants(limits, asked, allowed, soft):
  assert descriptors.allow(asked) == allowed
  assert limits == [soft, 1000]


def test_where_there_is_no_limit_all_are_allowed(limits):
  limits[1] = resource.RLIM_INFINITY
  assert descriptors.allow(5000) == 5000
  assert limits == [5000, resource.RLIM_INFINITY]
