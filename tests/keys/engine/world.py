"""A pair of engines with fake devices, a fake optical link and a channel that can be cut, watched and tampered with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.roles import LightMode, Pilot, TagBlock
from qmodd.clock import LoopClock
from qmodd.keys.alice_engine import AliceEngine
from qmodd.keys.authentication import Direction, Transcript
from qmodd.keys.blocks import RawBlock
from qmodd.keys.bob_engine import BobEngine
from qmodd.keys.conversation import Blocking, Desk
from qmodd.keys.counts import BatchReport, BlockCounts
from qmodd.keys.estimation import KeyLength, Proof, key_length_interval
from qmodd.keys.framesync import sync_bits
from qmodd.keys.journal import Journal
from qmodd.keys.kernels import InlineKernels, Kernels
from qmodd.keys.material import Material
from qmodd.keys.pool import Pool
from qmodd.keys.protocol import Plan
from qmodd.keys.records import BlockRecord
from qmodd.keys.settings import EngineSettings, PlanFacts
from qmodd.keys.sifting import Sifted
from qmodd.keys.store import Database, KeyStore, load_kek
from qmodd.provision import KEK_FILE, PRE_SHARED_FILE, provision
from qmodd.randomness import SeededRandomness
from tests.keys.engine.wire import Wire

ALICE, BOB, LINK = "QM-A-0001", "QM-B-0001", "lab-1"
PERIOD_PS, BIN_PS = 8000.0, 800.0
FACTS = PlanFacts(mu=((0.53, 0.55), (0.17, 0.19)), p_mu=(0.5, 0.5), p_x=0.5, calibration="mean_photon:1")


class Dead(Exception):
    """The process was killed."""


# --- devices over one small world ---


@dataclass
class Link:
    """125 MHz of slots; `rate` detections a second at random slots; perfect detectors but for `errors`."""

    seed: int = 1
    rate: float = 500_000.0
    errors: float = 0.005
    offset_ps: int = 7_000_000_123_456
    y: float = 1e-6
    start_slot: int = 3_000_000_000
    schedule: list[tuple[int, LightMode]] = field(default_factory=lambda: [(0, LightMode.OFF)])
    fibre_cut: bool = False

    def slot(self, now: float) -> int:
        return self.start_slot + int(now * 1e12 / PERIOD_PS)

    def tag(self, now: float) -> int:
        return self.offset_ps + int(now * 1e12 * (1 + self.y))

    def symbols(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        x = slots.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(self.seed)
        x ^= x >> np.uint64(29)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        return ((x >> np.uint64(40)) & np.uint64(7)).astype(np.uint8)

    def mode(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        starts = np.array([s for s, _ in self.schedule])
        modes = np.array([int(m) for _, m in self.schedule])
        return modes[np.searchsorted(starts, slots, side="right") - 1]

    def clicks(self, rng: np.random.Generator, first: int, end: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(tag times, channels) of the slots [first, end)."""
        n = rng.poisson(self.rate * (end - first) * PERIOD_PS * 1e-12)
        slots = np.unique(rng.integers(first, end, n)) if n and not self.fibre_cut else np.empty(0, np.int64)
        mode = self.mode(slots)
        keep = (mode == LightMode.SYNC) | (mode == LightMode.KEY)
        slots, mode = slots[keep], mode[keep]
        symbol = np.where(mode == LightMode.SYNC, 2 * sync_bits(slots), self.symbols(slots)).astype(np.int64)
        # A decoy is seen a third as often as a signal.
        keep = ((symbol & 4) == 0) | (rng.random(len(slots)) < 1 / 3)
        slots, symbol = slots[keep], symbol[keep]
        basis, bit = symbol & 1, (symbol >> 1) & 1
        own = rng.random(len(slots)) < 0.5
        wrong = rng.random(len(slots)) < self.errors
        value = np.where(own == (basis == 1), bit, rng.integers(0, 2, len(slots))) ^ wrong
        # X arm: middle bin; DX1 is bit 0. Z arm: DZ early or late.
        channel = np.where(own, np.where(value == 0, 2, 1), 0)
        where = np.where(own, BIN_PS, value * BIN_PS)
        t0 = (slots - self.start_slot) * PERIOD_PS * (1 + self.y)
        t = self.offset_ps + np.rint(t0 + where + rng.normal(0, 25, len(slots))).astype(np.int64) + 1000
        order = np.argsort(t, kind="stable")
        return t[order], channel[order].astype(np.uint8)


class FakeSource:
    period_ps, bin_ps = PERIOD_PS, BIN_PS

    def __init__(self, link: Link, clock: LoopClock) -> None:
        self._link = link
        self._clock = clock
        self.run_id = 0
        self.freed = 0
        self.asked: set[int] = set()

    async def run(self) -> int:
        self.run_id += 1
        return self.run_id

    async def now(self) -> tuple[int, int]:
        return self.run_id, self._link.slot(self._clock.monotonic())

    async def set_mode(self, mode: LightMode, state: int = 0, intensity: int = 0, at_slot: int | None = None) -> None:
        at = self._link.slot(self._clock.monotonic()) if at_slot is None else at_slot
        self._link.schedule = [(s, m) for s, m in self._link.schedule if s < at] + [(at, mode)]

    async def pilot(self) -> Pilot | None:
        return None

    async def read_symbols(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        wanted = set(slots.tolist())
        assert not wanted & self.asked, "a slot was asked for twice"
        self.asked |= wanted
        assert slots[0] >= self.freed
        nibbles = self._link.symbols(slots)
        nibbles[self._link.mode(slots) != LightMode.KEY] = 8
        return nibbles

    async def free(self, before_slot: int) -> None:
        self.freed = before_slot


class FakeTags:
    def __init__(self, link: Link, clock: LoopClock, seed: int = 5) -> None:
        self._link = link
        self._clock = clock
        self._rng = np.random.default_rng(seed)
        self._slot = 0
        self._from = 0
        self._sequence = 0
        self.gate = (0, 0)
        self.slip = 0

    async def run(self) -> None:
        now = self._clock.monotonic()
        self._slot, self._from = self._link.slot(now), self._link.tag(now)

    async def now_ps(self) -> int:
        return self._link.tag(self._clock.monotonic())

    async def set_gate(self, open_ps: int, period_ps: int) -> None:
        self.gate = (open_ps, period_ps)

    async def read(self) -> TagBlock:
        now = self._clock.monotonic()
        first, self._slot = self._slot, self._link.slot(now)
        start, end = self._from, self._link.tag(now)
        t, channel = self._link.clicks(self._rng, first, self._slot)
        self._from = end
        self._sequence += 1
        open_ps, period_ps = self.gate
        if period_ps:
            seen = t % period_ps < open_ps
            t, channel = t[seen], channel[seen]
        return TagBlock(t + self.slip, channel, start, end, self._sequence, False)


# --- modules ---


@dataclass
class Module:
    """What of one module outlives a kill: its directory. The rest is made anew by `boot`."""

    role: str
    directory: Path
    settings: EngineSettings
    seed: int
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    records: list[BlockRecord] = field(default_factory=list)
    batches: list[BatchReport] = field(default_factory=list)

    def boot(self, clock: LoopClock, kernels: Kernels | None = None, length_rule: Any = key_length_interval) -> Desk:
        self.seed += 1
        random = SeededRandomness(self.seed)
        self.database = Database(self.directory / "keys.db")
        self.store = KeyStore(self.database, load_kek(self.directory / KEK_FILE), LINK, ["kms"], random)
        self.pool = Pool(self.directory / "pool.pad", self.directory / PRE_SHARED_FILE, self.database)
        self.journal = Journal(self.store, self.pool)
        self.desk = Desk(
            self.settings,
            kernels or InlineKernels(random),
            self.journal,
            clock,
            random,
            Blocking(threads=False),
            lambda name, fields: self.events.append((name, fields)),
            self.records.append,
            length_rule,
        )
        return self.desk

    def shut(self) -> None:
        self.pool.close()
        self.database.close()

    def said(self, name: str) -> list[dict[str, Any]]:
        return [f for n, f in self.events if n == name]

    def keys(self) -> dict[Any, bytes]:
        return {i: bytes(k) for i, k in self.store.take_for_delivery("kms", 100_000)}


SETTINGS = EngineSettings(
    serial=ALICE, link_id=LINK, eps_sec=1e-2, eps_cor=1e-15, n_z=65_536, key_bits=128, replenish_bytes=160, holdoff=1
)


def make_pair(tmp: Path, settings: EngineSettings = SETTINGS) -> tuple[Module, Module]:
    provision(tmp, ALICE, BOB, LINK, 65_536, SeededRandomness(77), datetime(2026, 1, 1, tzinfo=UTC))
    a = Module("alice", tmp / ALICE, replace(settings, serial=ALICE, peer_serial=BOB), 100)
    b = Module("bob", tmp / BOB, replace(settings, serial=BOB, peer_serial=ALICE), 200)
    return a, b


def same_keys(a: Module, b: Module) -> int:
    """Both stores hold the same keys under the same ids, in the same order, and account for them; how many."""
    assert a.store.block_ids() == b.store.block_ids()
    assert a.store.key_ids() == b.store.key_ids()
    ours = a.keys()
    assert ours == b.keys()
    assert a.store.audit() is None
    assert b.store.audit() is None
    assert a.pool.written == b.pool.written
    assert a.pool.capacity == b.pool.capacity
    return len(ours)


def pool_bytes(m: Module) -> bytes:
    return (m.directory / "pool.pad").read_bytes()


# --- blocks without light ---


def raw_blocks(plan: Plan, block: int, n_z: int, n_x: int, errors: float, seed: int) -> tuple[RawBlock, RawBlock]:
    """The same detections as both sides keep them, a block of `plan` but for its size."""
    plan = replace(plan, n_z=n_z)
    rng = np.random.default_rng(seed)
    n = n_z + n_x
    basis = np.zeros(n, np.uint8)
    basis[rng.permutation(n - 1)[:n_x]] = 1
    bit = rng.integers(0, 2, n).astype(np.uint8)
    decoy = (rng.random(n) < 0.25).astype(np.uint8)
    wrong = (rng.random(n) < errors).astype(np.uint8)
    slots = np.cumsum(rng.integers(1, 100, n))
    peer = np.where(basis == 1, bit, 0).astype(np.uint8)
    out = []
    for own, heard in ((bit, np.zeros(n, np.uint8)), (bit ^ wrong, peer)):
        said = Transcript()
        said.add(Direction.ALICE, b"plan")
        material = Material.of(Sifted(slots, basis, own, decoy, heard))
        out.append(RawBlock(plan.run, block, plan, plan.mu, material, said, 0.0))
    return out[0], out[1]


def small_plan(run: int, settings: EngineSettings = SETTINGS) -> Plan:
    s, f = settings, FACTS
    return Plan(
        run, 1, 10, 20, 0, PERIOD_PS, BIN_PS, f.mu, f.p_mu, f.p_x, s.proof.value, s.eps_sec, s.eps_cor, s.n_z,
        s.key_bits, s.replenish_bytes, s.half_gate_ps, s.holdoff, 0, f.calibration,
    )  # fmt: skip


def half_of_the_bits(
    proof: Proof, counts: BlockCounts, mu: Any, p: Any, eps_sec: float, eps_cor: float, leak_bits: int
) -> KeyLength:
    """A rule for blocks that are too small for any bound; it proves nothing."""
    return KeyLength(counts.total_z // 2, 0, 0, 0, 0, 0, leak_bits, (0.54, 0.18))


@dataclass
class Pair:
    """Two engines on one wire and one optical link."""

    a: Module
    b: Module
    wire: Wire
    link: Link
    alice: AliceEngine
    bob: BobEngine
    source: FakeSource
    tags: FakeTags


async def serve_light(mode: LightMode, state: int, intensity: int, scale: float) -> None:
    return None


async def facts() -> PlanFacts:
    return FACTS


def boot_pair(
    a: Module,
    b: Module,
    loop: asyncio.AbstractEventLoop,
    link: Link | None = None,
    light: Any = serve_light,
    plan: Any = facts,
    wire: Wire | None = None,
    length_rule: Any = key_length_interval,
) -> Pair:
    clock, link, wire = LoopClock(loop), link or Link(), wire or Wire()
    source, tags = FakeSource(link, clock), FakeTags(link, clock)
    alice = AliceEngine(
        a.settings, wire.end(0), a.boot(clock, length_rule=length_rule), a.batches.append, source, light, plan
    )
    bob = BobEngine(b.settings, wire.end(1), b.boot(clock, length_rule=length_rule), b.batches.append, tags)
    return Pair(a, b, wire, link, alice, bob, source, tags)


async def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Simulated seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        assert loop.time() < end, "it did not happen"
        await asyncio.sleep(0.05)


async def stopped(*tasks: asyncio.Task[Any]) -> None:
    for t in tasks:
        t.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# --- engines without light ---


def start(
    a: Module, b: Module, loop: Any, length_rule: Any = half_of_the_bits
) -> tuple[Pair, list[asyncio.Task[None]]]:
    pair = boot_pair(a, b, loop, length_rule=length_rule)
    return pair, [asyncio.ensure_future(pair.alice.run()), asyncio.ensure_future(pair.bob.run())]


async def settled(pair: Pair) -> None:
    """Both have opened a session and nothing is in doubt."""
    await until(lambda: pair.alice._settled and pair.bob._settled)
    assert pair.alice._pool_fault is None
    assert pair.bob._pool_fault is None


def give(pair: Pair, run: int, block: int = 0, errors: float = 0.01, n_z: int = 6000) -> None:
    ours, theirs = raw_blocks(small_plan(run), block, n_z, 500, errors, seed=10 * run + block)
    pair.alice._queue_closed([ours])
    pair.bob._queue_closed([theirs])


async def idle(pair: Pair) -> None:
    await until(lambda: pair.alice.status.blocks_in_flight == pair.bob.status.blocks_in_flight == 0)
