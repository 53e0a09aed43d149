"""A module's core with a stand-in for the optics: everything from the commit of a block to the recipients is the real
thing, in a process of its own that may be killed at any moment.

    python -m benchmarks.delivery_core CONFIG BLOCKS_FILE KEYS_PER_BLOCK

CONFIG is a module's. Blocks are made as long as fewer are committed than the number in BLOCKS_FILE says. Both sides'
bits of a block follow from its id, as if it had been distilled; round, tags, two-phase commit and verdicts are those of
the engines. At every second start some keys are given up, as if by command.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from qmodd.clock import SystemClock
from qmodd.config import Config, load
from qmodd.door import Door
from qmodd.events import EventLog
from qmodd.identity import RecipientPublic, Signer
from qmodd.keys.alice_engine import AliceEngine
from qmodd.keys.allocation import Pair
from qmodd.keys.authentication import BlockAuthentication, Direction, Transcript
from qmodd.keys.bob_engine import BobEngine
from qmodd.keys.conversation import BlockAborted, Blocking, Conversation, Desk
from qmodd.keys.delivery import BatchFacts, KeyDelivery, Terms
from qmodd.keys.envelope import Provenance
from qmodd.keys.handover import Handover
from qmodd.keys.journal import Journal
from qmodd.keys.pool import Pool
from qmodd.keys.protocol import BlockClose, Prepare
from qmodd.keys.records import BlockRecord, SecretBits
from qmodd.keys.settings import EngineSettings
from qmodd.keys.store import Database, KeyStore, load_kek
from qmodd.messages import Alive, Event
from qmodd.outbox import Outbox
from qmodd.randomness import SystemRandomness

REPLENISH_BYTES = 192
KEY_BITS = 256
LIFETIME_S = 86_400.0
RUN = 1
GIVEN_UP_AT_ONCE = 3


def secret_of(block: UUID, keys: int) -> bytearray:
    """What both sides would have distilled."""
    return bytearray(hashlib.shake_256(b"stand-in" + block.bytes).digest(REPLENISH_BYTES + keys * KEY_BITS // 8))


def key_values(block: UUID, keys: int) -> list[bytes]:
    data, size = bytes(secret_of(block, keys))[REPLENISH_BYTES:], KEY_BITS // 8
    return [data[n * size : (n + 1) * size] for n in range(keys)]


@dataclass(frozen=True)
class Feed:
    """How many blocks there may be, and of how many keys."""

    blocks: Path
    keys: int

    def wanted(self, committed: int) -> bool:
        try:
            return committed < int(self.blocks.read_text() or "0")
        except FileNotFoundError:
            return False


def made_up(desk: Desk, role: str, number: int, uuid: UUID, round_: int, keys: int, created: float) -> BlockRecord:
    return BlockRecord(
        uuid=str(uuid), role=role, link=desk.settings.link_id, run=RUN, block=number, round=round_,
        proof="wiesemann2024", n_z=(700, 300), m_z=(7, 3), n_x=(70, 30), m_x=(1, 1), mu=((0.5, 0.6), (0.1, 0.2)),
        leak_bits=100, length_bits=8 * REPLENISH_BYTES + keys * KEY_BITS, replenish_bits=8 * REPLENISH_BYTES,
        key_bits=KEY_BITS, keys=keys, dropped_bits=0, frames=1, frames_helped=0, eps_sec=1e-9, eps_cor=1e-15,
        eps_auth=1e-26, seed_sha256="00" * 32, calibration="stand-in", allocations=1, first_slot=0, end_slot=1,
        created=created, not_after=created + LIFETIME_S, pairs=((1, KEY_BITS),),
        recipients=desk.journal.store.recipients,
    )  # fmt: skip


def _talk(engine: Any, me: Direction, number: int) -> Conversation:
    raw: Any = types.SimpleNamespace(run=RUN, block=number, transcript=Transcript())
    return Conversation(raw, me, engine.session.send, engine._mail.box(RUN, number))


class FedAlice(AliceEngine):
    """Her blocks come from the feed instead of the fibre."""

    feed: Feed

    async def _tasks(self, group: asyncio.TaskGroup) -> None:
        await super()._tasks(group)
        group.create_task(self._fed(), name="feed")

    async def _fed(self) -> None:
        number = 0
        while True:
            journal = self.desk.journal
            if not (self._settled and self.feed.wanted(journal.store.commits)):
                await asyncio.sleep(0.05)
                continue
            await self._block(number)
            number += 1

    async def _block(self, number: int) -> None:
        desk, pool = self.desk, self.desk.journal.pool
        talk, uuid, round_ = _talk(self, Direction.ALICE, number), desk.randomness.uuid(), pool.next_round
        await desk.blocking(pool.claim, round_)
        talk.authentication = BlockAuthentication(pool, desk.settings.link_id, round_, talk.transcript)
        created = desk.clock.utc().timestamp()
        record = made_up(desk, "alice", number, uuid, round_, self.feed.keys, created)
        secret = secret_of(uuid, self.feed.keys)
        await desk.blocking(desk.journal.prepare, record, SecretBits(secret, 8 * len(secret)))
        await talk.send(BlockClose(RUN, number, round_, (1,), (1,)))
        await talk.send(Prepare(RUN, number, uuid.bytes, created, record.not_after, 1, (1,), (KEY_BITS,)))
        await talk.send_tag(1)
        try:
            await self._distiller._finish(talk, record)
        except BlockAborted as e:
            desk.on_event("block.aborted", {"why": str(e)})
        else:
            self._committed(record)
            if self.handover is not None:
                self.handover.poke()  # type: ignore[attr-defined]


class FedBob(BobEngine):
    """He makes of Alice's word what light would have given him."""

    feed: Feed

    async def _tasks(self, group: asyncio.TaskGroup) -> None:
        await super()._tasks(group)
        self._mail.open(RUN, 0)
        group.create_task(self._fed(), name="feed")

    async def _fed(self) -> None:
        number = 0
        while True:
            self._mail.open(RUN, number + 1)
            try:
                await self._block(number)
            except BlockAborted as e:
                self.desk.on_event("block.aborted", {"why": str(e)})
            number += 1

    async def _block(self, number: int) -> None:
        desk, journal = self.desk, self.desk.journal
        talk = _talk(self, Direction.BOB, number)
        close = await talk.expect(BlockClose)
        await desk.blocking(journal.pool.claim, close.round)
        talk.authentication = BlockAuthentication(journal.pool, desk.settings.link_id, close.round, talk.transcript)
        prepare = await talk.expect(Prepare)
        await talk.check_tag(1)
        uuid = UUID(bytes=prepare.uuid)
        record = made_up(desk, "bob", number, uuid, close.round, self.feed.keys, prepare.created)
        secret = secret_of(uuid, self.feed.keys)
        await desk.blocking(journal.prepare, record, SecretBits(secret, 8 * len(secret)))
        await self._distiller._finish(talk, record)
        self._committed(record)
        if self.handover is not None:
            self.handover.poke()  # type: ignore[attr-defined]


class Core:
    """What of a core hands keys over, composed as the daemon composes it."""

    def __init__(self, config: Config, feed: Feed) -> None:
        c, state = config, config.module.state_dir
        state.mkdir(parents=True, exist_ok=True)
        self.clock, random = SystemClock(), SystemRandomness()
        self.events = EventLog(state / "events.jsonl", self.clock, c.module.serial)
        self.outbox = Outbox(state / "outbox.db")
        self.events.listeners.append(
            lambda entry: self.outbox.put("event", Event.from_entry(entry).payload(), kind="event") and None
        )
        self.database = Database(state / "keys.db")
        self.pool = Pool(state / "pool.ring", c.pair.pre_shared_key, self.database)
        names = [r.name for r in c.recipient]
        self.store = KeyStore(
            self.database, load_kek(c.pair.key_encryption_key), c.pair.link_id, names, random, self.clock
        )
        journal, blocking = Journal(self.store, self.pool), Blocking(threads=True)
        epoch = random.bytes(8).hex()
        recipients = {r.name: RecipientPublic.load(r.public) for r in c.recipient}
        delivery = KeyDelivery(
            self.store, self.outbox, Signer.load(c.uplink.identity), recipients, c.pair.link_id, epoch, random,
            self._facts, self.events.record, terms={r.name: Terms(r.batch_keys, r.depth) for r in c.recipient},
        )  # fmt: skip
        self.handover = Handover.of(
            journal, delivery, c.module.serial, self.clock, random, blocking, self.events.record
        )
        self.door = Door(
            state / "door.sock", self.outbox, self.clock, _no_request, self.handover.on_key_ack,
            alive=Alive(state="online", epoch=epoch, version="0", since=self.clock.utc()), module=c.module.serial,
            report=lambda name, why: self.events.record(name, {"why": why}),
        )  # fmt: skip
        settings = EngineSettings(
            serial=c.module.serial, link_id=c.pair.link_id, peer_serial=c.pair.peer_serial, key_bits=KEY_BITS,
            replenish_bytes=REPLENISH_BYTES, pairs=tuple(Pair(n, 1, KEY_BITS) for n in names),
        )  # fmt: skip
        kernels: Any = None
        desk = Desk(settings, kernels, journal, self.clock, random, blocking, self.events.record, lambda _: None)
        unused: Any = None
        self.engine: FedAlice | FedBob
        if c.module.role == "alice":
            self.engine = FedAlice(settings, self.door.channel, desk, unused, unused, unused, unused)
        else:
            self.engine = FedBob(settings, self.door.channel, desk, unused, unused)
        self.engine.feed, self.engine.handover = feed, self.handover

    def _facts(self, ids: Sequence[UUID]) -> BatchFacts:
        blocks = self.store.blocks_of(ids)
        begin = datetime.fromtimestamp(min(b.created for b in blocks), UTC)
        end = begin + timedelta(seconds=LIFETIME_S)
        made = tuple(Provenance(round=b.round, protocol="stand-in", eps_sec=b.eps_sec, qber=b.qber_z) for b in blocks)
        return BatchFacts(begin, end, end, made)

    async def run(self) -> None:
        self.events.record("core.started", {})
        self.outbox.keep_synced()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.door.run(), name="door")
            group.create_task(self.engine.run(), name="engine")
            group.create_task(self.handover.run(), name="delivery")
            group.create_task(self._give_up(), name="give up")

    async def _give_up(self) -> None:
        chance = SystemRandomness()
        ids = await asyncio.to_thread(self.store.key_ids)
        if not ids or chance.bytes(1)[0] % 2:
            return
        chosen = [ids[int.from_bytes(chance.bytes(4), "big") % len(ids)] for _ in range(GIVEN_UP_AT_ONCE)]
        await self.handover.revoke(chosen, "given up by the benchmark")


async def _no_request(*_: Any) -> None:
    """No command is part of this."""


def main(argv: Sequence[str]) -> int:
    config, blocks, keys = argv
    asyncio.run(Core(load(Path(config)), Feed(Path(blocks), int(keys))).run())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
