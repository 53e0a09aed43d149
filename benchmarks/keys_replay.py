"""A receiver with replayed tags, and a transmitter that knows all its answers beforehand, so that it costs nothing.

The receiver is the real one: engine, worker, session, authentication, store. Its tags are one block's worth of clicks,
over and over, each time so many slots later. The transmitter claims rounds, keeps the transcript and checks tags as
the real one does, but what it would compute from its bits it looks up.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from benchmarks.measure import must_agree
from drivers.roles import TagBlock
from qmodd.clock import SystemClock
from qmodd.keys import protocol
from qmodd.keys.accounting import StageTally
from qmodd.keys.alice_distil import AliceDistiller
from qmodd.keys.authentication import Direction, Transcript
from qmodd.keys.bench import Bench
from qmodd.keys.blocks import BlockBuilder, RawBlock
from qmodd.keys.bob_engine import BobEngine
from qmodd.keys.conversation import Blocking, Desk, pairs_of
from qmodd.keys.counts import BlockCounts
from qmodd.keys.estimation import Proof
from qmodd.keys.frames import FrameClock, Gates
from qmodd.keys.journal import InDoubt, Journal
from qmodd.keys.kernels import Kernels, WorkerKernels
from qmodd.keys.material import Held, Material
from qmodd.keys.pool import Pool
from qmodd.keys.protocol import Basis, BlockMessage, Committed, Detect, Note, Plan, Recipients, Synced, Tally, Welcome
from qmodd.keys.receiving import MOST_TAGS, Receiver, TagFeed
from qmodd.keys.reconciliation import Setting
from qmodd.keys.records import BlockRecord, SecretBits
from qmodd.keys.session import Party, Session
from qmodd.keys.settings import EngineSettings
from qmodd.keys.sifting import encode_basis, match
from qmodd.keys.stations import Line, Mail
from qmodd.keys.store import Database, KeyStore, load_kek
from qmodd.keys.tracking import ClockTracker
from qmodd.provision import KEK_FILE, PRE_SHARED_FILE, provision
from qmodd.randomness import SystemRandomness

ALICE, BOB, LINK = "QM-A-BENCH", "QM-B-BENCH", "bench"
PERIOD_PS, BIN_PS = 8000.0, 800.0
MU, P_MU, P_X = ((0.6, 0.6), (0.2, 0.2)), (0.5, 0.5), 0.1
_DECOYS = 0.25
_EVERY = 6  # slots to a click, on average
_EMPTY = 8  # slots without clicks at the end of a reading: nothing of it waits for the next
_DETECT_COUNT = struct.Struct("<QII")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Tape:
    """One block's worth of readings (tags in ps from the block's begin, channels), what Alice sent in every slot of
    each, and how many slots each takes."""

    t: list[npt.NDArray[np.int64]]
    channel: list[npt.NDArray[np.uint8]]
    nibbles: list[npt.NDArray[np.uint8]]
    slots: list[npt.NDArray[np.int64]]
    ends: list[int]

    @property
    def clicks(self) -> int:
        return sum(map(len, self.t))


def tape(n_z: int, qber: float, seed: int) -> Tape:
    """Clicks of which exactly `n_z` are sifted Z detections; one in ten was prepared in the other basis."""
    rng = np.random.default_rng(seed)
    n = round(n_z / (0.9 * (1 - P_X)) * 1.01)
    x = rng.random(n) < P_X
    fits = rng.random(n) < 0.9
    n = int(np.flatnonzero(~x & fits)[n_z - 1]) + 1
    x, fits = x[:n], fits[:n]
    bit = rng.integers(0, 2, n)
    seen = bit ^ (rng.random(n) < qber)
    decoy = rng.random(n) < _DECOYS
    nibble = (np.where(fits, x, ~x) | bit << 1 | decoy.astype(np.int64) << 2).astype(np.uint8)
    slots = np.cumsum(rng.integers(2, 2 * _EVERY - 1, n))
    out, begin = Tape([], [], [], [], []), 0
    for a in range(0, n, MOST_TAGS):
        part = slice(a, min(n, a + MOST_TAGS))
        s = slots[part] - slots[a] + 2
        end = int(s[-1]) + _EMPTY
        at = np.where(x[part], BIN_PS, seen[part] * BIN_PS) + rng.normal(0, 25, len(s))
        out.t.append((s + begin) * int(PERIOD_PS) + np.rint(at).astype(np.int64))
        out.channel.append(np.where(x[part], np.where(seen[part] == 0, 2, 1), 0).astype(np.uint8))
        out.nibbles.append(nibble[part])
        out.slots.append(s)
        begin += end
        out.ends.append(begin)
    return out


class Player:
    """The tagger: as fast as it is asked, at most `blocks` blocks; stands still then."""

    def __init__(self, played: Tape, blocks: int) -> None:
        self._readings = len(played.t)
        length = played.ends[-1] * int(PERIOD_PS)
        # Prepared, so that replaying costs no more than a tagger's own buffer would.
        copies = [[t + k * length for t in played.t] for k in range(blocks)]
        self._blocks = deque(
            TagBlock(
                copies[k][j],
                played.channel[j],
                k * length + (played.ends[j - 1] * int(PERIOD_PS) if j else 0),
                k * length + played.ends[j] * int(PERIOD_PS),
                k * self._readings + j,
                False,
                more=False,
            )
            for k in range(blocks)
            for j in range(self._readings)
        )

    async def run(self) -> None:
        return None

    async def now_ps(self) -> int:
        return 0

    async def set_gate(self, open_ps: int, period_ps: int) -> None:
        return None

    async def read(self) -> TagBlock:
        while not self._blocks:
            await asyncio.sleep(3600)
        return self._blocks.popleft()


class LosslessFeed(TagFeed):
    """Takes no more than is wanted: a replay loses nothing, it waits."""

    async def run(self) -> None:
        while True:
            while self._waiting:
                await asyncio.sleep(0.002)
            self._take(await self._tags.read())


class Wire:
    """One end of the service channel: a socket to the other process, frames with their length before them."""

    connected = True

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(sock=self._end, limit=1 << 22)
        return self._streams

    async def close(self) -> None:
        _, writer = await self._open()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def wait_connected(self) -> int:
        await self._open()
        return 1

    async def send(self, message: bytes) -> None:
        _, writer = await self._open()
        writer.write(_LENGTH.pack(len(message)))
        writer.write(message)
        await writer.drain()

    async def receive(self) -> bytes:
        reader, _ = await self._open()
        (n,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return await reader.readexactly(n)


class KnownRandomness(SystemRandomness):
    """Alice's: bytes of one length are always the same, so that what follows from them can be looked up."""

    def bytes(self, n: int) -> bytes:
        return np.random.default_rng(n).bytes(n)


class Looked(Kernels):
    """Alice's kernels: everything is computed the first time and looked up from then on."""

    def __init__(self, material: Material) -> None:
        self._bench = Bench(SystemRandomness())
        self._held = self._bench.hold(material)
        self._known: dict[Any, Any] = {}

    async def _call(self, method: str, *arguments: Any) -> Any:
        key = (method, *(a for a in arguments if not isinstance(a, Held | Material)))
        if key not in self._known:
            self._known[key] = getattr(self._bench, method)(*arguments)
        result = self._known[key]
        return result.copy() if method == "amplify" else result

    async def hold(self, material: Material) -> Held:
        return self._held

    async def tally(self, held: Held) -> StageTally:
        return self._bench.tally(self._held)

    def release(self, held: Held) -> None:
        return None


class PoolOnly:
    """Alice's journal: keeps her pool in step with Bob's and no keys, whose store is not what is measured."""

    def __init__(self, pool: Pool, store: KeyStore) -> None:
        self.pool, self.store = pool, store
        self._ready: dict[UUID, tuple[BlockRecord, bytearray]] = {}
        self._done: set[UUID] = set()

    def prepare(self, record: BlockRecord, secret: SecretBits) -> None:
        self._ready[UUID(record.uuid)] = record, secret.data[: record.replenish_bits // 8]

    def commit(self, uuid: UUID) -> BlockRecord:
        record, share = self._ready.pop(uuid)
        self.pool.advance(self.pool.stage(share, record.round))
        self._done.add(uuid)
        return record

    def committed(self, uuid: UUID) -> bool:
        return uuid in self._done

    def peer_done(self, uuid: UUID) -> None:
        self._done.discard(uuid)

    def in_doubt(self) -> list[InDoubt]:
        return []


class KnowingAlice:
    """Serves one run of the receiver's."""

    def __init__(
        self, desk: Desk, wire: Wire, played: Tape, plan: Plan, kernels: Looked, basis: list[bytes], qber: float
    ) -> None:
        self._desk, self._played, self._plan, self._basis = desk, played, plan, basis
        party = Party(Direction.ALICE, ALICE, LINK, BOB)
        self.session = Session(wire, desk.journal.pool.secret, party, SystemRandomness())
        self._mail, self._line = Mail(), Line()
        self._distiller = AliceDistiller(desk, self.session.send, self._mail, self._line, qber)
        # What the first of many blocks would have taught it.
        self._distiller.expected.mean = qber
        self._distiller.policy.setting = Setting.THROUGHPUT
        self._tasks: set[asyncio.Task[Any]] = set()
        self._material = material(played)

    async def run(self) -> None:
        await self.session.open()
        plan = protocol.encode(self._plan)
        builder = BlockBuilder(self._plan, plan)
        said: deque[Transcript] = deque()
        detects, tallies = itertools.count(), itertools.count()
        async with asyncio.TaskGroup() as group:
            while True:
                message, data = await self.session.receive()
                match message:
                    case Welcome():
                        pool = self._desk.journal.pool
                        await self.session.send(Welcome(pool.next_round, pool.written, 0, ()))
                        (pair,) = pairs_of(self._desk, self._desk.settings.key_bits)
                        await self.session.send(Recipients((pair.name,), (pair.share,), (pair.key_bits,)))
                        await self.session.send(Note("ready", "", True, ""))
                        await self.session.send(plan)
                    case Synced():
                        builder.synced_bytes = data
                    case Detect():
                        j = next(detects) % len(self._basis)
                        (_, _, n) = _DETECT_COUNT.unpack_from(message.data)
                        must_agree(f"reading {j}: {n} detections", n == len(self._played.nibbles[j]))
                        basis = protocol.encode(Basis(self._plan.run, self._basis[j]))
                        words = Transcript()
                        words.add(Direction.BOB, data)
                        words.add(Direction.ALICE, basis)
                        said.append(words)
                        await self.session.send(basis)
                    case Tally():
                        words = said.popleft()
                        words.add(Direction.BOB, data)
                        last = next(tallies) % len(self._basis) == len(self._basis) - 1
                        closed = [self._material] if last else []
                        for raw in builder.gathered(words, closed, 0, 0.0):
                            self._mail.open(raw.run, raw.block)
                            group.create_task(self._distil(raw))
                    case Committed():
                        await self._distiller.on_committed(message)
                    case BlockMessage():
                        self._mail.post(message, data)

    async def _distil(self, raw: RawBlock) -> None:
        await self._distiller.distil(raw)
        self._mail.close(raw.run, raw.block)


def material(played: Tape) -> Material:
    """Alice's block."""
    nibbles = np.concatenate(played.nibbles)
    x = np.concatenate(played.channel) != 0
    fits = (nibbles & 1) == x
    bit, decoy = (nibbles >> 1) & 1, (nibbles >> 2) & 1

    def split(chosen: npt.NDArray[np.bool_]) -> tuple[int, int]:
        return int((chosen & (decoy == 0)).sum()), int((chosen & (decoy == 1)).sum())

    z = fits & ~x
    counts = BlockCounts(split(z), (0, 0), split(fits & x), (0, 0))
    return Material(bit[z], decoy[z], counts, 0, played.ends[-1])


def answers(played: Tape) -> list[bytes]:
    """BASIS of every reading."""
    out = []
    for channel, nibbles in zip(played.channel, played.nibbles, strict=True):
        out.append(encode_basis(match((channel != 0).astype(np.uint8), nibbles)))
    return out


class ReplayedBob(BobEngine):
    """The receiver's engine, but for the search for the transmitter's slots: the tape begins at slot `first`."""

    async def _one_run(self, plan: Plan, data: bytes) -> None:
        receiver = Receiver(self.settings, self.desk.kernels, plan)
        first = plan.key_slot
        clock = FrameClock(first, 0, 0.0, PERIOD_PS)
        receiver.next_slot, receiver._tracker = first, ClockTracker(clock)
        gates = Gates(BIN_PS, plan.half_gate_ps, lead_ps=BIN_PS)
        await self.desk.kernels.open_frames(gates, plan.holdoff, (0.0, 0.0, 0.0), first)
        synced = protocol.encode(Synced(plan.run, first, ""))
        await self.session.send(synced)
        builder = BlockBuilder(plan, data, began=self.desk.clock.monotonic(), synced_bytes=synced)
        await self._sift(builder, receiver)

    def _feed(self) -> TagFeed:
        return LosslessFeed(self._tags, self.desk.clock, 0.0, 2, self._tags_wake.set)


def settings(serial: str, peer: str, n_z: int) -> EngineSettings:
    return EngineSettings(serial, LINK, peer, n_z=n_z, holdoff=0, blocks_in_flight=4, silence_s=600.0)


def the_plan(s: EngineSettings) -> Plan:
    return Plan(
        *(1, 1, 10, 20, 0, PERIOD_PS, BIN_PS, MU, P_MU, P_X, Proof.WIESEMANN2024.value, s.eps_sec, s.eps_cor, s.n_z),
        *(s.key_bits, s.replenish_bytes, s.half_gate_ps, s.holdoff, 0, "bench:1"),
    )


@dataclass
class Rig:
    """The receiver, ready to run, and the process at the far end; `committed` are the receiver's blocks with the time
    of each commit."""

    bob: ReplayedBob
    alice: BaseProcess
    wire: Wire
    desk: Desk
    committed: list[tuple[float, BlockRecord]]
    events: list[tuple[str, dict[str, Any]]]

    async def close(self) -> None:
        await self.wire.close()
        self.alice.kill()
        self.alice.join()
        self.alice.close()
        self.desk.journal.pool.close()
        self.desk.journal.store.database.close()


def rig(tmp: Path, played: Tape, n_z: int, qber: float, blocks: int, kernels: WorkerKernels) -> Rig:
    provision(tmp, ALICE, BOB, LINK, 262_144, SystemRandomness(), datetime(2026, 1, 1, tzinfo=UTC))
    ours, theirs = socket.socketpair()
    # A process of its own, as it is another machine in earnest: what it does must not hold up the receiver's loop.
    with theirs:
        alice = get_context("spawn").Process(target=_alice_main, args=(theirs, tmp, played, n_z, qber), daemon=True)
        alice.start()
    committed: list[tuple[float, BlockRecord]] = []
    events: list[tuple[str, dict[str, Any]]] = []
    clock, own = SystemClock(), settings(BOB, ALICE, n_z)
    store = _store(tmp / BOB)
    desk = _desk(own, kernels, Journal(store, _pool(tmp / BOB, store)), clock, SystemRandomness(), threads=True)
    desk.on_block = lambda record: committed.append((clock.monotonic(), record))
    desk.on_event = lambda name, fields: events.append((name, dict(fields)))
    wire = Wire(ours)
    bob = ReplayedBob(own, wire, desk, lambda _: None, Player(played, blocks))  # type: ignore[arg-type]
    return Rig(bob, alice, wire, desk, committed, events)


def _alice_main(end: socket.socket, tmp: Path, played: Tape, n_z: int, qber: float) -> None:
    # Nor in the way of the receiver's loop on this machine's cores.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    own = settings(ALICE, BOB, n_z)
    store = _store(tmp / ALICE)
    journal, looked = PoolOnly(_pool(tmp / ALICE, store), store), Looked(material(played))
    desk = _desk(own, looked, journal, SystemClock(), KnownRandomness())
    alice = KnowingAlice(desk, Wire(end), played, the_plan(own), looked, answers(played), qber)
    asyncio.run(alice.run())


def _store(directory: Path) -> KeyStore:
    database = Database(directory / "keys.db")
    return KeyStore(database, load_kek(directory / KEK_FILE), LINK, ["kms"], SystemRandomness())


def _pool(directory: Path, store: KeyStore) -> Pool:
    return Pool(directory / "pool.pad", directory / PRE_SHARED_FILE, store.database)


def _desk(
    s: EngineSettings,
    kernels: Kernels,
    journal: Any,
    clock: SystemClock,
    random: SystemRandomness,
    threads: bool = False,
) -> Desk:
    return Desk(s, kernels, journal, clock, random, Blocking(threads), lambda *_: None, lambda _: None)
