"""Simulates a run of many actors: who waits for which core or network, and how long.

Services are cores that do their work in the order in which it comes, each behind a
network interface of its own. Actors act, and hand packs to replay, with two under way
at most; the learner draws batches, one of them ahead; each version of the params goes
to all subscribers, and who is late skips versions; every worker reports. Nothing is
random but the moments at which actors begin: what limits a run is a sum of work. No
ratio of samples to inserts is held, so that each side goes as fast as it can.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
import dataclasses
import heapq
import itertools
import random
from typing import NamedTuple

_PACK, _PACK_BYTES = 32, 1 << 20  # of `replay.pack_inserter`
_UNDER_WAY = 2  # packs of an actor
_REPORT_S, _REPORT_OF_EACH_S = 0.5, 0.002  # of `variables.service`
_FAN_OUT = 100
_SECONDS = 2.0
_WARM_UP_S = 1.0
_END_S = _WARM_UP_S + _SECONDS


class Experience(NamedTuple):
  """What the experience of one kind of environment costs, on one core.

  Attributes:
    step_s: CPU-seconds of an actor for an environment step, all included.
    insert_s: CPU-seconds of replay for a transition that it takes, over gRPC.
    sample_s: CPU-seconds of replay for a transition that it gives, over gRPC, and
      for its new priority.
    read_s: CPU-seconds of the learner's process for a transition that it gets.
    row_bytes: of a transition in replay; its frames are counted once, as they travel.
    sample_bytes: of a transition on its way to the learner.
    params_bytes: of the params that an actor gets.
  """

  step_s: float
  insert_s: float
  sample_s: float
  read_s: float
  row_bytes: int
  sample_bytes: int
  params_bytes: int


class Rates(NamedTuple):
  """What one core does.

  Attributes:
    experience: by the name of a kind of environments.
    send_s: CPU-seconds of a server or relay to send a version to a subscriber, by
      TLS, without its bytes.
    send_byte_s: the same for each byte.
    receive_s: CPU-seconds of an actor to receive a version, by TLS, and to place it
      where its policy reads it, without its bytes.
    receive_byte_s: the same for each byte.
    report_s: CPU-seconds of the variable server for a report.
  """

  experience: dict[str, Experience]
  send_s: float
  send_byte_s: float
  receive_s: float
  receive_byte_s: float
  report_s: float


@dataclasses.dataclass(frozen=True)
class Run:
  """A run to be simulated.

  Attributes:
    rates: of one core.
    experience: of its environments.
    updates_per_s: that the learner can make where batches are always there.
    batch: transitions in an update.
    num_actors: each on a core of its own.
    num_replays: replay servers.
    num_relays: 0 lets the variable server send params to the actors.
    publish_s: seconds between versions, at least.
    env_s: seconds that an environment's step takes where it is not this machine's
      CPU-time; 0 where it is.
    network: bytes a second of a host's interface, each way.
  """

  rates: Rates
  experience: Experience
  updates_per_s: float
  batch: int
  num_actors: int
  num_replays: int = 1
  num_relays: int = 0
  publish_s: float = 0.1
  env_s: float = 0.0
  network: float = 1.25e9  # 10 Gbit/s


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a simulated run does.

  Attributes:
    env_steps_per_s: of all actors.
    updates_per_s: of the learner, who waits for nobody but replay.
    samples_per_insert: transitions learnt from for each that was inserted.
    params_s: from a version's publication until the last actor had it, of the worst.
    report_s: the time that a report takes at the worst.
    busy: shares of their time for which the actors, replay's cores and interfaces,
      the learner, the variable server and relays had work.
  """

  env_steps_per_s: float
  updates_per_s: float
  samples_per_insert: float
  params_s: float
  report_s: float
  busy: dict[str, float]

  @property
  def limit(self) -> str:
    """The part that limits the environment steps: the one that has the most work."""
    parts = ('acting', 'replay', "replay's network")
    return max(parts, key=lambda part: self.busy[part])


class _Core:
  """Does work in the order in which it comes."""

  def __init__(self) -> None:
    self.free_at = self.busy_s = 0.0

  def do(self, now: float, work_s: float) -> float:
    """Returns the time at which work that comes now is done."""
    start = max(now, self.free_at)
    self.free_at = start + work_s
    within = min(self.free_at, _END_S) - max(start, _WARM_UP_S)
    self.busy_s += max(0.0, within)
    return self.free_at


class _Replay:
  """A replay server: takes packs in turn, and draws batches beside."""

  def __init__(self, at: Callable[[float, Callable[[float], None]], None]):
    self.core = _Core()
    self._at = at
    self._packs = collections.deque[tuple[float, Callable[[float], None]]]()
    self._taking = False
    self._drawn_s = (
      0.0  # work for draws, which the packs have yet to make room for
    )

  def insert(
    self, now: float, work_s: float, done: Callable[[float], None]
  ) -> None:
    """Takes a pack; calls `done` then."""
    self._packs.append((work_s, done))
    if not self._taking:
      self._take(now)

  def draw(self, now: float, work_s: float) -> float:
    """Draws with half of the core, if packs want the other; returns when done."""
    if not self._taking and self.core.free_at <= now:
      return self.core.do(now, work_s)
    self._drawn_s += work_s
    return now + 2 * work_s

  def _take(self, now: float) -> None:
    self._taking = bool(self._packs)
    if self._packs:
      work_s, done = self._packs.popleft()
      end = self.core.do(now, work_s + self._drawn_s)
      self._drawn_s = 0.0
      self._at(end, done)
      self._at(end, self._take)


class _Simulation:
  """Holds the state of one simulated run."""

  def __init__(self, run: Run) -> None:
    self.run = run
    self.steps = self.sampled = self.updates = 0
    self.params_s = self.report_s = 0.0
    self.actors = [_Core() for _ in range(run.num_actors)]
    self.replays = [_Replay(self.at) for _ in range(run.num_replays)]
    self.networks = [_Core() for _ in range(run.num_replays)]
    self.variables = _Core()
    self.relays = [_Core() for _ in range(run.num_relays)]
    self.learner, self.reader = _Core(), _Core()
    self._under_way = [0] * run.num_actors
    self._held = [False] * run.num_actors
    self._events: list[tuple[float, int, Callable[[float], None]]] = []
    self._order = itertools.count()
    of = run.experience
    self.pack = max(1, min(_PACK, _PACK_BYTES // of.row_bytes))
    self._next_replay = itertools.cycle(range(run.num_replays))

  def at(self, time: float, event: Callable[[float], None]) -> None:
    heapq.heappush(self._events, (time, next(self._order), event))

  def go(self) -> Outcome:
    """Runs for `_WARM_UP_S`, and for `_SECONDS` that count."""
    draw = random.Random(0)
    step_s = self._step_s()
    for index in range(self.run.num_actors):
      begin = draw.random() * self.pack * step_s
      self.at(begin, lambda now, index=index: self.act(now, index))
    self.at(0.0, self.sample)
    self.at(0.0, self.publish)
    workers = self.run.num_actors + self.run.num_relays
    self._report_period_s = max(_REPORT_S, _REPORT_OF_EACH_S * workers)
    self.at(0.0, self.report)
    while self._events[0][0] < _END_S:
      now, _, event = heapq.heappop(self._events)
      event(now)
    return self.outcome()

  def _counts(self, now: float) -> bool:
    return now >= _WARM_UP_S

  def _step_s(self) -> float:
    return self.run.experience.step_s + self.run.env_s

  def act(self, now: float, index: int) -> None:
    """An actor acts until it has a pack, and hands the pack over."""
    done = self.actors[index].do(now, self.pack * self._step_s())
    self.at(done, lambda now: self.insert(now, index))

  def insert(self, now: float, index: int) -> None:
    """A pack goes through replay's interface and into the tables."""
    self.steps += self.pack * self._counts(now)
    self._under_way[index] += 1
    replay = next(self._next_replay)
    of = self.run.experience
    there = self.networks[replay].do(
      now, self.pack * of.row_bytes / self.run.network
    )

    def arrive(now: float) -> None:
      self.replays[replay].insert(
        now,
        self.pack * of.insert_s,
        lambda now: self.acknowledge(now, index),
      )

    self.at(there, arrive)
    if self._under_way[index] < _UNDER_WAY:
      self.act(now, index)
    else:
      self._held[index] = True

  def acknowledge(self, now: float, index: int) -> None:
    self._under_way[index] -= 1
    if self._held[index]:
      self._held[index] = False
      self.act(now, index)

  def sample(self, now: float) -> None:
    """A batch is drawn, a share by each replay server, and travels to the learner.

    The next is drawn meanwhile: two are under way, beside the one that is learnt from.
    """
    run, of = self.run, self.run.experience
    share = run.batch / run.num_replays
    drawn = max(
      replay.draw(now, share * of.sample_s) for replay in self.replays
    )
    self.at(drawn, self.read)

  def read(self, now: float) -> None:
    """A batch is read and learnt from, once the learner is done with the last."""
    run, of = self.run, self.run.experience
    travels_s = run.batch * of.sample_bytes / run.network
    there = self.reader.do(now, max(of.read_s * run.batch, travels_s))
    begun = max(there, self.learner.free_at)
    self.learner.do(there, 1 / run.updates_per_s)
    self.updates += _WARM_UP_S <= begun < _END_S
    # Not before the learner has room for what is read now.
    self.at(max(now, begun - 1 / run.updates_per_s), self.sample)

  def publish(self, now: float) -> None:
    """A version goes to all who subscribe; the next follows if that is done."""
    run = self.run
    if run.num_relays:
      direct = min(run.num_relays, _FAN_OUT)
      share = -(-run.num_actors // run.num_relays)
    else:
      direct, share = run.num_actors, 0
    sent = self._send(now, self.variables, direct)
    last = sent
    for relay in self.relays:
      last = max(last, self._send(sent, relay, share))
    self.params_s = max(self.params_s, last - now)
    size = run.experience.params_bytes
    received_s = run.rates.receive_s + run.rates.receive_byte_s * size
    for actor in self.actors:
      actor.do(max(now, actor.free_at), received_s)
    # A newer version waits until the slowest core has sent this one.
    cores = [self.variables, *self.relays]
    free = max(core.free_at for core in cores)
    self.at(max(now + run.publish_s, free), self.publish)

  def _send(self, now: float, core: _Core, subscribers: int) -> float:
    rates, size = self.run.rates, self.run.experience.params_bytes
    cpu_s = subscribers * (rates.send_s + rates.send_byte_s * size)
    return max(core.do(now, cpu_s), now + subscribers * size / self.run.network)

  def report(self, now: float) -> None:
    """One worker of all reports; they do so in turns."""
    workers = self.run.num_actors + self.run.num_relays
    done = self.variables.do(now, self.run.rates.report_s)
    if self._counts(now):
      self.report_s = max(self.report_s, done - now)
    self.at(now + self._report_period_s / workers, self.report)

  def outcome(self) -> Outcome:
    def share(cores: list[_Core]) -> float:
      if not cores:
        return 0.0
      return sum(core.busy_s for core in cores) / len(cores) / _SECONDS

    of, run = self.run.experience, self.run
    steps_per_s = self.steps / _SECONDS
    updates_per_s = self.updates / _SECONDS
    return Outcome(
      env_steps_per_s=steps_per_s,
      updates_per_s=updates_per_s,
      samples_per_insert=updates_per_s * run.batch / max(1.0, steps_per_s),
      params_s=self.params_s,
      report_s=self.report_s,
      busy={
        'acting': steps_per_s * (of.step_s + run.env_s) / run.num_actors,
        'replay': share([replay.core for replay in self.replays]),
        "replay's network": share(self.networks),
        'learner': share([self.learner]),
        'variable server': share([self.variables]),
        'relays': share(self.relays),
      },
    )


def simulate(run: Run) -> Outcome:
  """Returns what a run does."""
  return _Simulation(run).go()
