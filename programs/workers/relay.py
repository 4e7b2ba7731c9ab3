"""Runs a relay of a program, which hands params on to its share of the actors."""

from __future__ import annotations

import functools
import logging
import time

from distacme import status as status_lib
from distacme.programs import program as program_lib
from distacme.programs import recorded_run
from distacme.programs.workers import context as context_lib
from distacme.rpc import keys
from distacme.rpc import token as token_lib
from distacme.run import descriptors
from distacme.run import endpoints
from distacme.variables import relay as relay_lib

# A connection for each of its actors, and for many of a relay that is lost.
_DESCRIPTORS = 4096
_REPORT_PERIOD_S = 1.0


def run(context: context_lib.Context) -> None:
  """Hands params on until the run stops; no client has to end before."""
  source = context.find(program_lib.VARIABLES)
  if source is None:
    return
  if context.process:
    descriptors.allow(_DESCRIPTORS)
  relay = _serve(context, source)
  try:
    context.listens(relay.endpoint)
    _report(context, relay)
  finally:  # or a relay of a thread would go on
    relay.stop()


def _report(context: context_lib.Context, relay: relay_lib.Relay) -> None:
  """Reports until the run stops."""
  connection, report_at = context.connection, time.monotonic()
  while (directive := connection.report()).stop is None:
    if time.monotonic() >= report_at:
      report_at = time.monotonic() + _REPORT_PERIOD_S
      metrics = {'subscribers': float(relay.subscribers)}
      if relay.version >= 0:
        learner_steps = directive.counts.get('learner_steps', 0)
        metrics['policy_lag'] = max(0, learner_steps - relay.version)
      connection.report(metrics=metrics, state=status_lib.WorkerState.SERVING)
    time.sleep(0.05)


def _serve(
  context: context_lib.Context, source: endpoints.Endpoint
) -> relay_lib.Relay:
  """Returns a relay, on the port of an earlier start if that port is free."""
  config = recorded_run.run_config(context.config, context.directory)
  find = functools.partial(endpoints.find, context.directory.endpoints)
  above = program_lib.relay_of(context.spec)
  before = context.listened()
  start = functools.partial(
    relay_lib.Relay,
    context.name,
    source,
    functools.partial(find, program_lib.VARIABLES),
    find_relay=functools.partial(find, above) if above else None,
    **context.interface._asdict(),
    key=context.directory.path / keys.FILE if config.encrypted else None,
    token=context.directory.path / token_lib.FILE,
    incarnation=before.incarnation + 1 if before else 0,
  )
  try:
    return start(port=before.port if before else 0)
  except OSError as error:
    if before is None:
      raise
    logging.warning('%s Another port is used.', error)
    return start()
