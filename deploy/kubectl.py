"""Asks a cluster of Kubernetes by kubectl."""

from __future__ import annotations

from collections.abc import Sequence
import json
import shutil
import subprocess
from typing import Any

_TIMEOUT_S = 60.0


class KubectlError(Exception):
  """A kubectl failed; the message is what it said."""


def is_installed() -> bool:
  """Returns whether kubectl is there."""
  return shutil.which('kubectl') is not None


def check_installed() -> None:
  """Refuses to go on without kubectl.

  Raises:
    ValueError: if it is not there.
  """
  if not is_installed():
    raise ValueError(
      'kubectl is not here: install it and give it a cluster (kubectl cluster-info '
      'shows which), or add --dry-run to see the manifests.'
    )


def command(*arguments: str, timeout_s: float = _TIMEOUT_S) -> str:
  """Runs kubectl; returns its output.

  Raises:
    KubectlError: if it fails, or does not end in time.
  """
  try:
    done = subprocess.run(
      ['kubectl', *arguments],
      capture_output=True,
      text=True,
      timeout=timeout_s,
      stdin=subprocess.DEVNULL,
    )
  except (OSError, subprocess.TimeoutExpired) as error:
    raise KubectlError(str(error)) from error
  if done.returncode:
    said = (done.stderr or done.stdout).strip() or f'code {done.returncode}'
    raise KubectlError(said)
  return done.stdout


def may(namespace: str, verb: str, what: str, *options: str) -> bool:
  """Returns whether the cluster allows this user something.

  Args:
    namespace: in which it would be done.
    verb: e.g. 'create'.
    what: the kind of objects, e.g. 'jobs.batch'.
    *options: more arguments, e.g. '--subresource=exec'.

  Raises:
    KubectlError: if the cluster does not answer.
  """
  where = ('--namespace', namespace)
  try:
    command('auth', 'can-i', verb, what, *options, *where)
  except KubectlError as error:
    said = str(error)
    if said == 'no' or said.startswith('no - '):  # kubectl fails by its answer
      return False
    raise
  return True


def objects(
  namespace: str, what: str, *selection: str
) -> Sequence[dict[str, Any]]:
  """Returns objects of a kind.

  Args:
    namespace: of the objects.
    what: the kind, e.g. 'jobs'.
    *selection: more arguments, e.g. '--selector' and labels.

  Raises:
    KubectlError: if the cluster does not answer.
  """
  text = command(
    'get', what, '--namespace', namespace, *selection, '-o', 'json'
  )
  found: dict[str, Any] = json.loads(text)
  items: list[dict[str, Any]] = found.get('items', [])
  return items
