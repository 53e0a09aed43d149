"""An adversary with a seed against two whole engines: one attack on every block, then both stores must be equal.

A *campaign* is a pair of freshly provisioned modules and a number of blocks. Nothing is mocked but light (blocks come
without it), time (simulated) and the length rule (blocks are too small for any proof).
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from qmodd.clock import LoopClock
from qmodd.keys import protocol, session
from qmodd.keys.alice_engine import AliceEngine
from qmodd.keys.authentication import FrameFilter
from qmodd.keys.bob_engine import BobEngine
from qmodd.keys.fields import ProtocolError
from qmodd.keys.protocol import BlockMessage, Commit
from sim.loop import run_simulated
from tests.keys.engine import world
from tests.keys.engine.wire import Wire
from tests.keys.engine.world import Dead, Module, Pair, half_of_the_bits, stopped, until

# Rounds of blocks that fail are lost, so those that succeed put back more than one.
SETTINGS = replace(world.SETTINGS, replenish_bytes=320, retry_s=0.2)
N_Z = 6000
# A message at which an attack begins; a block without help takes 13, and notes go between them.
MOST_MESSAGES = 15
STEPS = ("prepare", "commit", "peer_done", "stage", "claim")


class Wrong(AssertionError):
    """What must never happen has happened; says what, and the campaign's seed."""


@dataclass
class Score:
    """What was done, and what came of it."""

    attacks: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    blocks: int = 0
    committed: int = 0
    aborted: int = 0
    keys: int = 0
    kills: int = 0
    tampered: int = 0
    accepted: int = 0
    inside: int = 0
    inside_committed: int = 0
    pairs: int = 0

    def add(self, other: Score) -> None:
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


class Ears:
    """Compares what each end of a session believes with what the other end has said: a prefix, bit for bit."""

    def __init__(self) -> None:
        self.said: dict[bytes, list[bytes]] = {}
        self.heard: Counter[bytes] = Counter()
        self.accepted_wrongly = 0

    @contextmanager
    def listening(self) -> Iterator[Ears]:
        """While this lasts, every session's filter is listened to."""
        ears = self

        class Overheard(FrameFilter):
            def seal(self, message: bytes) -> bytes:
                ears.said.setdefault(self._out, []).append(message)
                return super().seal(message)

            def open(self, frame: bytes) -> bytes | None:
                message = super().open(frame)
                if message is not None:
                    said, n = ears.said.get(self._in, []), ears.heard[self._in]
                    ears.accepted_wrongly += n >= len(said) or said[n] != message
                    ears.heard[self._in] += 1
                return message

        real, session.FrameFilter = session.FrameFilter, Overheard  # type: ignore[misc]
        try:
            yield self
        finally:
            session.FrameFilter = real  # type: ignore[misc]

    def forget(self) -> None:
        """Of sessions that are over."""
        for key in list(self.said)[:-4]:
            del self.said[key], self.heard[key]


def flipped(rng: random.Random, data: bytes) -> bytes:
    """One to three bits are the other way round."""
    out = bytearray(data)
    for bit in rng.sample(range(8 * len(data)), min(8 * len(data), rng.choice((1, 1, 1, 2, 3)))):
        out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


class Campaign:
    """One pair of modules under attack."""

    def __init__(self, directory: Path, seed: int, loop: Any) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.loop = loop
        self.score = Score(pairs=1)
        self.ears = Ears()
        self.a, self.b = world.make_pair(directory, SETTINGS)
        self.wire = Wire()
        self.pair: Pair = world.boot_pair(self.a, self.b, loop, wire=self.wire, length_rule=half_of_the_bits)
        self.tasks = [self._life(0), self._life(1)]
        self.old: list[bytes] = []
        self.attacked: tuple[int, int] | None = None

    # --- lives and deaths ---

    def _life(self, side: int) -> asyncio.Task[None]:
        engine = self.pair.alice if side == 0 else self.pair.bob
        self._listen_inside(engine)
        return asyncio.ensure_future(engine.run())

    def _module(self, side: int) -> Module:
        return self.b if side else self.a

    async def kill(self, *sides: int) -> None:
        """End a process without a word, and start it anew on what is on its disk."""
        self.wire.cut()
        for side in sides:
            await stopped(self.tasks[side])
            module, pair = self._module(side), self.pair
            module.shut()
            desk = module.boot(LoopClock(self.loop), length_rule=half_of_the_bits)
            if side == 0:
                pair.alice = AliceEngine(
                    module.settings, self.wire.end(0), desk, module.batches.append, pair.source, world.serve_light,
                    world.facts,
                )  # fmt: skip
            else:
                pair.bob = BobEngine(module.settings, self.wire.end(1), desk, module.batches.append, pair.tags)
            self.tasks[side] = self._life(side)
            self.score.kills += 1
        await asyncio.sleep(self.rng.choice((0.0, 0.1, 1.0)))
        self.wire.mend()

    # --- an adversary who broke the session's keys: only the one-time tags are left ---

    def _listen_inside(self, engine: AliceEngine | BobEngine) -> None:
        self.inside: Callable[[bytes], bytes] = lambda data: data
        real = engine.session.send

        async def send(message: Any) -> None:
            data = message if isinstance(message, bytes) else protocol.encode(message)
            await real(self.inside(data))

        engine.session.send = send  # type: ignore[method-assign]
        for part in vars(engine).values():
            if getattr(part, "send", None) == real:
                part.send = send

    def _change_inside(self, at: int) -> Callable[[bytes], bytes]:
        """Change the at-th message about a block on its way, so that it still is a message."""
        seen = 0

        def change(data: bytes) -> bytes:
            nonlocal seen
            message = protocol.decode(data)
            if not isinstance(message, BlockMessage | Commit):
                return data
            seen += 1
            if seen != at:
                return data
            for _ in range(50):
                other = flipped(self.rng, data)
                try:
                    told = protocol.decode(other)
                except ProtocolError:
                    continue
                if type(told) is type(message) and told != message:
                    self.score.inside += 1
                    if not isinstance(message, Commit):
                        self.attacked = message.run, message.block
                    return other
            return data

        return change

    # --- attacks: each prepares something, and may return what is to be done when it was met ---

    def _frames(self, act: Callable[[int, bytes], Sequence[bytes]], p: float) -> None:
        self.wire.tamper = lambda d, n, frame: act(d, frame) if self._dice(p) else [frame]

    def _dice(self, p: float) -> bool:
        hit = self.rng.random() < p
        self.met[0] += hit
        return hit

    def _tamper(self, d: int, frame: bytes) -> Sequence[bytes]:
        self.score.tampered += 1
        return [flipped(self.rng, frame)]

    def _at(self, act: Callable[[int, bytes], Sequence[bytes]]) -> None:
        """Once, at one message."""
        left = self.rng.randint(1, MOST_MESSAGES)

        def tamper(d: int, n: int, frame: bytes) -> Sequence[bytes]:
            nonlocal left
            left -= 1
            if left:
                return [frame]
            self.met[0] += 1
            return act(d, frame)

        self.wire.tamper = tamper

    def nothing(self) -> None:
        return None

    def flip_once(self) -> None:
        self._at(self._tamper)

    def flip_often(self) -> None:
        self._frames(self._tamper, 0.1)

    def drop_once(self) -> None:
        self._at(lambda d, frame: [])

    def drop_often(self) -> None:
        self._frames(lambda d, frame: [], 0.1)

    def replay(self) -> None:
        self._frames(lambda d, frame: [frame, frame, *self.rng.choices([*self.old, frame], k=2)], 0.2)

    def reflect(self) -> None:
        """A side hears its own words."""

        def back(d: int, frame: bytes) -> Sequence[bytes]:
            self.wire.queues[d].append(frame)
            return [frame]

        self._frames(back, 0.2)

    def inject(self) -> None:
        rng = self.rng
        self._frames(lambda d, f: [rng.choice((b"S", b"H", b"")) + rng.randbytes(rng.randint(0, 60)), f], 0.2)

    def reorder(self) -> None:
        held: list[list[bytes]] = [[], []]

        def swap(d: int, frame: bytes) -> Sequence[bytes]:
            held[d].append(frame)
            return []

        def tamper(d: int, n: int, frame: bytes) -> Sequence[bytes]:
            if not held[d] and self._dice(0.15):
                return swap(d, frame)
            late, held[d] = held[d], []
            return [frame, *late]

        self.wire.tamper = tamper

    def cut(self) -> None:
        def act(d: int, frame: bytes) -> Sequence[bytes]:
            self.loop.call_soon(self.wire.cut)
            self.loop.call_later(0.3, self.wire.mend)
            return self.rng.choice(([], [frame]))

        self._at(act)

    def kill_speaker(self) -> None:
        """Before or after the message has left."""

        def act(d: int, frame: bytes) -> Sequence[bytes]:
            if self.rng.random() < 0.5:
                self.wire.queues[1 - d].append(frame)
                self.wire.wake()
            raise Dead

        self._at(act)

    def kill_listener(self) -> None:
        """Before it has read the message, or at once afterwards."""

        def act(d: int, frame: bytes) -> Sequence[bytes]:
            if self.rng.random() < 0.5:
                self.tasks[1 - d].cancel()
            else:
                self.loop.call_soon(self.loop.call_soon, self.tasks[1 - d].cancel)
            return [frame]

        self._at(act)

    def kill_both(self) -> None:
        def act(d: int, frame: bytes) -> Sequence[bytes]:
            self.tasks[1 - d].cancel()
            raise Dead

        self._at(act)

    def kill_at_step(self) -> None:
        """Just before or after something is made durable."""
        module, name, after = self._module(self.rng.randint(0, 1)), self.rng.choice(STEPS), self.rng.random() < 0.5
        where: Any = module.pool if name in ("stage", "claim") else module.journal
        real: Callable[..., Any] = getattr(where, name)

        def deadly(*arguments: Any) -> Any:
            self.met[0] += 1
            if after:
                real(*arguments)
            raise Dead

        setattr(where, name, deadly)
        self.restore = lambda: setattr(where, name, real)

    def change_inside(self) -> None:
        self.inside = self._change_inside(self.rng.randint(1, 16))

    def flip_key(self) -> None:
        """Bob's memory loses a bit between correction and verification, or Alice's after the syndrome."""
        module = self._module(self.rng.randint(0, 1))
        bench: Any = module.desk.kernels._bench  # type: ignore[attr-defined]
        real = bench.verification_tag

        def tag(*arguments: Any) -> Any:
            for material in bench._blocks.values():
                z = getattr(material, "z_bits", None)
                if z is not None and len(z) and z.flags.writeable:
                    z[self.rng.randrange(len(z))] ^= 1
                    self.met[0] += 1
            return real(*arguments)

        bench.verification_tag = tag
        self.restore = lambda: bench.__dict__.pop("verification_tag", None)

    # --- one block ---

    ATTACKS = (
        "nothing", "nothing", "nothing", "flip_once", "flip_once", "flip_often", "drop_once", "drop_often", "replay",
        "reflect", "inject", "reorder", "cut", "kill_speaker", "kill_speaker", "kill_listener", "kill_listener",
        "kill_both", "kill_at_step", "kill_at_step", "change_inside", "change_inside", "change_inside", "flip_key",
    )  # fmt: skip

    async def one(self, run: int) -> None:
        rng, name = self.rng, self.rng.choice(self.ATTACKS)
        self.met, self.attacked = Counter[int](), None
        self.restore: Callable[[], object] = lambda: None
        inside_before = self.score.inside
        getattr(self, name)()
        errors = rng.choice((0.0, 0.01, 0.01, 0.02, 0.03, 0.03, 0.05, 0.5))
        world.give(self.pair, run, errors=errors, n_z=N_Z)
        begun = len(self.wire.record)
        await self._quiet(15.0)
        self.wire.tamper = lambda d, n, frame: [frame]
        self.inside = lambda data: data
        self.restore()
        await self._recover()
        self.old = [frame for _, frame in self.wire.record[begun:]][:12] or self.old
        self.wire.record.clear()
        self.score.attacks[name] += 1
        self.score.met[name] += self.met[0] > 0 or self.score.inside > inside_before
        self._judge(run, errors)

    def _in_work(self) -> bool:
        return self.pair.alice.status.blocks_in_flight > 0 or self.pair.bob.status.blocks_in_flight > 0

    async def _quiet(self, seconds: float) -> None:
        end = self.loop.time() + seconds
        while self._in_work() and not any(t.done() for t in self.tasks) and self.loop.time() < end:
            await asyncio.sleep(0.05)

    async def _recover(self) -> None:
        """Without an attack every doubt must end: nothing stays open, whatever was done before."""
        await asyncio.sleep(0.05)  # who was told to die is dead by then
        dead = [side for side, task in enumerate(self.tasks) if task.done()]
        for side in dead:
            task = self.tasks[side]
            error = None if task.cancelled() else task.exception()
            if error is not None and not _died(error):
                raise Wrong(f"campaign {self.seed}: an engine ended by itself: {error!r}") from error
        if dead:
            await self.kill(*dead)
        elif self._in_work() or any(m.journal.in_doubt() for m in (self.a, self.b)):
            self.wire.cut()
            await asyncio.sleep(0.1)
            self.wire.mend()
        if not self.wire.up:
            self.wire.mend()
        await until(self._settled, 60)
        await until(lambda: not self._in_work(), 60)
        await until(lambda: not (self.a.journal.in_doubt() or self.b.journal.in_doubt()), 60)
        await until(lambda: not self.a.journal.verdicts_owed(), 60)

    def _settled(self) -> bool:
        return self.pair.alice._settled and self.pair.bob._settled

    def _judge(self, run: int, errors: float) -> None:
        """Both stores hold the same blocks and the same keys bit for bit, and both pools are at the same place."""
        a, b, score = self.a, self.b, self.score
        for engine in (self.pair.alice, self.pair.bob):
            if engine._pool_fault is not None:
                raise Wrong(f"campaign {self.seed}, block {run}: {engine._pool_fault}")
        if a.store.block_ids() != b.store.block_ids():
            raise Wrong(f"campaign {self.seed}, block {run}: a block is key on one side only")
        ours, theirs = a.keys(), b.keys()
        if ours != theirs:
            raise Wrong(f"campaign {self.seed}, block {run}: the keys differ")
        if self.ears.accepted_wrongly:
            raise Wrong(f"campaign {self.seed}, block {run}: a message was accepted that was not sent")
        for module in (a, b):
            if (fault := module.store.audit()) is not None:
                raise Wrong(f"campaign {self.seed}, block {run}: {fault}")
        known = [a.store.block(i) for i in _blocks_of(a)]
        done = [r for r in known if r is not None and r.run == run]
        if done and errors == 0.5:
            raise Wrong(f"campaign {self.seed}, block {run}: key from noise")
        if done and self.attacked is not None:
            raise Wrong(f"campaign {self.seed}, block {run}: a block became key although its messages were changed")
        score.blocks += 1
        score.committed += len(done)
        score.aborted += not done
        score.keys += len(ours)
        self._deliver(list(ours))

    def _deliver(self, ids: list[UUID]) -> None:
        for module in (self.a, self.b):
            module.store.mark_delivered(ids)
            module.records.clear()
            module.events.clear()
        self.ears.forget()

    def why_stop(self) -> str | None:
        return self.a.pool.why_not() or self.b.pool.why_not()

    async def end(self) -> None:
        if self.a.pool.written != self.b.pool.written:
            raise Wrong(f"campaign {self.seed}: the pools differ")
        await stopped(*self.tasks)
        self.a.shut(), self.b.shut()


def _blocks_of(module: Module) -> list[UUID]:
    rows = module.database.rows("SELECT uuid FROM blocks ORDER BY seq DESC LIMIT 1")
    return [UUID(bytes=r[0]) for r in rows if isinstance(r[0], bytes)]


def _died(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_died(e) for e in error.exceptions)
    return isinstance(error, Dead)


def campaign(seed: int, blocks: int) -> Score:
    """So many blocks of one pair, or fewer if attacks use up its pool. Raises Wrong."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None

    async def main(loop: Any) -> Score:
        with tempfile.TemporaryDirectory(dir=memory, prefix="qmodd-attacks-") as name:
            c = Campaign(Path(name), seed, loop)
            with c.ears.listening():
                await until(c._settled)
                for run in range(1, blocks + 1):
                    if c.why_stop() is not None:
                        break
                    await c.one(run)
                await c.end()
            return c.score

    score: Score = run_simulated(main)
    return score
