"""The simulation behind docs/scale.md, against numbers worked by hand."""

import dataclasses
import importlib.util
import pathlib
import sys

import pytest

PATH = pathlib.Path(__file__).parents[1] / 'benchmarks/simulation.py'
# Benchmarks are no part of what is installed.
_found = importlib.util.spec_from_file_location('scale_simulation', PATH)
simulation = importlib.util.module_from_spec(_found)
sys.modules['scale_simulation'] = simulation  # where dataclasses look
_found.loader.exec_module(simulation)

EXPERIENCE = simulation.Experience(
  step_s=1e-3,
  insert_s=1e-6,
  sample_s=1e-9,
  read_s=1e-9,
  row_bytes=100,
  sample_bytes=100,
  params_bytes=1000,
)
RATES = simulation.Rates(
  {},
  send_s=1e-3,
  send_byte_s=0.0,
  receive_s=0.0,
  receive_byte_s=0.0,
  report_s=1e-6,
)
RUN = simulation.Run(
  RATES, EXPERIENCE, updates_per_s=100.0, batch=10, num_actors=20
)


def outcome(*, experience=(), rates=(), **run):
  """Returns the outcome of RUN with other numbers."""
  return simulation.simulate(
    dataclasses.replace(
      RUN,
      experience=EXPERIENCE._replace(**dict(experience)),
      rates=RATES._replace(**dict(rates)),
      **run,
    )
  )


def test_actors_that_nobody_holds_up_step_as_fast_as_they_can():
  did = outcome()
  assert did.env_steps_per_s == pytest.approx(20_000, rel=0.02)
  assert did.limit == 'acting'
  assert did.updates_per_s == pytest.approx(100, rel=0.02)
  assert did.samples_per_insert == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize('num_replays', [1, 4])
def test_a_replay_server_takes_what_its_core_does(num_replays):
  did = outcome(experience={'insert_s': 1e-3}, num_replays=num_replays)
  assert did.env_steps_per_s == pytest.approx(1_000 * num_replays, rel=0.05)
  assert did.limit == 'replay'
  assert did.busy['replay'] == pytest.approx(1.0, rel=0.02)


def test_draws_take_their_share_of_the_core_from_inserts():
  # 100 batches of 10 a second, of 0.5 ms each transition: half of the core.
  did = outcome(experience={'insert_s': 1e-3, 'sample_s': 5e-4})
  assert did.updates_per_s == pytest.approx(100, rel=0.05)
  assert did.env_steps_per_s == pytest.approx(500, rel=0.1)


def test_a_network_takes_so_many_bytes():
  # A transition of 1 MB, of which 1,250 fit through 10 Gbit/s in a second.
  did = outcome(experience={'row_bytes': 1_000_000})
  assert did.env_steps_per_s == pytest.approx(1_250, rel=0.05)
  assert did.limit == "replay's network"


def test_a_learner_gets_no_more_than_is_drawn():
  did = outcome(experience={'sample_s': 5e-3})  # a batch in 50 ms at best
  assert 9 <= did.updates_per_s <= 21  # with half of the core, or all of it
  assert did.busy['learner'] < 0.25


def test_receiving_params_costs_actors_time():
  free, held = outcome(), outcome(rates={'receive_s': 0.05})  # of each 0.1 s
  assert held.env_steps_per_s == pytest.approx(
    free.env_steps_per_s / 2, rel=0.05
  )


def test_relays_shorten_the_way_of_params_and_free_the_reports():
  alone = outcome(num_actors=200)
  assert alone.params_s == pytest.approx(0.2, rel=0.05)
  assert alone.report_s > 0.15
  assert alone.busy['variable server'] > 0.98
  relayed = outcome(num_actors=200, num_relays=10)
  assert relayed.params_s == pytest.approx(0.03, rel=0.05)  # 10 ms and 20 ms
  assert relayed.report_s < 0.02
  assert relayed.busy['variable server'] == pytest.approx(0.1, rel=0.1)
