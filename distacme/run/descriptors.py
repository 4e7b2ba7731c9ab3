"""Asks the system for the file descriptors that a process needs."""

from __future__ import annotations

import resource


def allow(count: int) -> int:
  """Lets this process, and those that it starts, open `count` files.

  Most systems allow 1,024 until a process asks for more, macOS 256.

  Returns:
    The number that is allowed now, which is less where the system refuses more.
  """
  allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
  if allowed == resource.RLIM_INFINITY or allowed >= count:
    return count
  if most != resource.RLIM_INFINITY:
    count = min(count, most)
  if count > allowed:
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))
  return count
