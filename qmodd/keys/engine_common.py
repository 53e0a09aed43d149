"""What the engines of both sides share: sessions that survive cuts, the far module's notes, the queue of blocks."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Protocol
from uuid import UUID

from drivers.errors import DriverError
from qmodd.channel import ChannelDown, MessageChannel
from qmodd.keys.allocation import difference
from qmodd.keys.authentication import Direction, SessionBroken
from qmodd.keys.bench import NotOpen
from qmodd.keys.blocks import Flags, RawBlock
from qmodd.keys.conversation import Desk, pairs_of
from qmodd.keys.fields import ProtocolError
from qmodd.keys.inwork import InWork
from qmodd.keys.kernels import WorkerDied
from qmodd.keys.pool import PoolRefused
from qmodd.keys.protocol import BlockMessage, HandoverMessage, Message, Note, Recipients, Rekey, Stop, Welcome
from qmodd.keys.records import BlockRecord
from qmodd.keys.session import Party, Session
from qmodd.keys.settings import EngineSettings, EngineStatus, OnBatch, Phase
from qmodd.keys.stations import Inbox
from qmodd.keys.store import StoreRefused

MOST_UNREAD = 256
# Four of the greatest blocks with everything that is said about them fit.
MOST_UNREAD_BYTES = 1 << 25
# What ends a run and is tried again, by a run of its own.
RUN_FAULTS = (DriverError, WorkerDied, NotOpen, PoolRefused, StoreRefused, ValueError)


class HandoverTalk(Protocol):
    """Talk about keys that are committed, beside everything else in a session (`qmodd.keys.handover`)."""

    async def session(self, send: Callable[[Message], Awaitable[None]]) -> None: ...
    def hear(self, message: HandoverMessage) -> None: ...


class RunEnded(Exception):
    """A run (SYNC to the end of KEY) is over; the message says why."""


class Engine(ABC):
    """Life of an engine: `run` until cancelled; `start_keying` and `stop_keying` say what is wanted.

    `note(state, why)` is what the far module is told for display. A cut of the channel aborts the blocks in work with a
    reason and is followed by a new handshake; prepared blocks are settled there.
    """

    ME: Direction

    def __init__(self, settings: EngineSettings, channel: MessageChannel, desk: Desk, on_batch: OnBatch) -> None:
        self.settings = settings
        self.status = EngineStatus()
        self.flags = Flags()
        self.desk = desk
        self.on_batch = on_batch
        pool = desk.journal.pool
        party = Party(self.ME, settings.serial, settings.link_id, settings.peer_serial)
        self.session = Session(channel, pool.secret, party, desk.randomness)
        self.session.on_refused = self._stranger
        self._channel = channel
        self._wanted = False
        self._why_not = "not asked for"
        self._note = ("", "")
        # Serial of the photonic module that is in; "" before it is known.
        self.module_serial = ""
        # Told the serial of the far photonic module whenever another one than before is heard of.
        self.on_peer_module: Callable[[str], None] = lambda serial: None
        self.peer_module = ""
        # Fingerprint of the pad that this module would change over to, b"" for none; and who hears the far one's.
        self.rekey_offer = b""
        self.on_rekey: Callable[[bytes], None] = lambda fingerprint: None
        # Whoever hands keys over at both sites; None: nobody does.
        self.handover: HandoverTalk | None = None
        self._changed = asyncio.Event()
        self._settled = False
        self._pool_fault: str | None = None
        self._welcome: Welcome | None = None
        self._heard = 0.0
        # Why the last session ended.
        self._cut = ""
        self._drop_why = ""
        self._reset()

    def _reset(self) -> None:
        """Per session."""
        self._sift_inbox: Inbox[Message] = Inbox()
        self._works = InWork(self.desk, self.status, lambda raw: self._distil(raw), lambda: self._stir())
        self._mail, self._line = self._works.mail, self._works.line
        # Something that a waiting run may act on: a message, tags, a block that is done.
        self._wake = asyncio.Event()
        self._drop = asyncio.Event()
        self._settled = False
        self._welcome = None
        self._welcomed = asyncio.Event()
        # Until the far module has said how it deals its keys.
        self._recipients_differ: str | None = "the far module has not said who its keys are for"
        self.status.blocks_in_flight = 0
        self.status.peer_ready = False

    # --- what the app calls ---

    async def run(self) -> None:
        """Until cancelled: connect, shake hands, serve; again after every cut."""
        while True:
            if not self._channel.connected:
                why = "the service channel is not connected"
                self._phase(Phase.OFFLINE, f"{why}: {self._cut}" if self._cut else why)
            await self._channel.wait_connected()
            self._cut = await self._one_session()
            self._lost(self._cut)
            honour_cancellation()
            if self._channel.connected and not self.session.restarted:
                await asyncio.sleep(min(self.settings.retry_s, 0.2))

    async def start_keying(self) -> None:
        """This module is ready and asks for keys; Alice begins when both ask."""
        self._wanted, self._why_not = True, ""
        self.status.wanted = True
        await self._send_note()
        self._changed.set()

    async def stop_keying(self, why: str) -> None:
        """End the run; blocks that are closed are distilled to their end, the open one is dropped."""
        if not self._wanted:
            return
        self._wanted, self._why_not = False, why
        self.status.wanted = False
        self._changed.set()
        self._sift_inbox.put_nowait((Stop(why), b""))
        self._stir()
        await self._try_send(Stop(why))
        await self._send_note()

    def set_module(self, serial: str) -> None:
        """Which photonic module is in, before keys are asked for. With another one nothing of the one before goes on:
        the run ends, and blocks in distillation are dropped, on both sides."""
        before, self.module_serial = self.module_serial, serial
        if before and before != serial:
            self.drop_blocks(f"module {before} was replaced by {serial}")

    def drop_blocks(self, why: str) -> None:
        """End the session with the far module: runs and blocks that are not prepared end on both sides; for those that
        are, the journals decide in the next session, as after a cut."""
        self._drop_why = why
        self._drop.set()

    async def offer_rekey(self) -> None:
        """Tell the far module which pad this one would change over to, if there is one."""
        if self.rekey_offer:
            await self._try_send(Rekey(self.rekey_offer))

    def rekeyed(self) -> None:
        """The pool is another one: what was said about the one before does not hold, and the session ends."""
        self._pool_fault, self.status.pool_low = None, False
        self.drop_blocks("the pair was re-keyed")

    async def note(self, state: str, why: str) -> None:
        """State of this module, shown on the far one."""
        if (state, why) != self._note:
            self._note = (state[:64], why[:256])
            await self._send_note()

    def flag_interval(self, reason: str, since_s: float = 0.0) -> None:
        """Keep everything out of the key from `since_s` seconds ago until `clear_flag(reason)`.

        For reasons outside of the block's own bits only. What was announced already stays in.
        """
        self.flags.begin(reason, self.desk.clock.monotonic() - since_s)

    def clear_flag(self, reason: str) -> None:
        self.flags.end(reason, self.desk.clock.monotonic())

    # --- for the two sides ---

    @abstractmethod
    async def _tasks(self, group: asyncio.TaskGroup) -> None:
        """Start the side's own tasks of a session."""

    @abstractmethod
    async def _dispatch(self, message: Message, data: bytes) -> None:
        """One message that is not common to both sides."""

    @abstractmethod
    async def _distil(self, raw: RawBlock) -> BlockRecord: ...

    @abstractmethod
    async def _on_welcome(self, welcome: Welcome) -> None: ...

    def _why_no_keys(self) -> str | None:
        """What stands in the way of a new run, or None; the same questions on both sides."""
        store, s = self.desk.journal.store, self.settings
        if not self._wanted:
            return self._why_not
        if self._pool_fault is not None:
            return self._pool_fault
        if self._recipients_differ is not None:
            return self._recipients_differ
        if not self._settled:
            return "blocks of an earlier session are being settled"
        if store.waiting() >= s.store_limit:
            return f"{store.waiting()} keys wait for delivery; the limit is {s.store_limit}"
        return self.desk.journal.pool.why_not()

    def follow(self, settings: EngineSettings) -> None:
        """Other settings from here on; what has begun with the old ones, a run or a block, ends with them."""
        self.settings = self.desk.settings = settings

    def _event(self, name: str, **fields: str | int | float | bool | None) -> None:
        self.desk.on_event(name, fields)

    def _phase(self, phase: Phase, why: str) -> None:
        if (phase, why) != (self.status.phase, self.status.why):
            self.status.phase, self.status.why = phase, why
            self._event("engine.phase", phase=phase, why=why)

    def _queue_closed(self, blocks: list[RawBlock]) -> None:
        self._works.add(blocks)

    def _stir(self) -> None:
        """Whoever waits for something to do looks again."""
        self._wake.set()

    def _sifted(self, bits: int, seconds: float) -> None:
        self.status.batches += 1
        self.status.sifted_bps = bits / seconds if seconds > 0 else 0.0

    # --- sessions ---

    async def _one_session(self) -> str:
        """Why it ended."""
        why: list[str] = []
        try:
            if self.session.restarted:
                self.session.restarted = False
            else:
                self._phase(Phase.HANDSHAKE, self.session.refused or "waiting for the far module")
                await self.session.open()
            self._reset()
            self._heard = self.desk.clock.monotonic()
            async with asyncio.TaskGroup() as group:
                await self._tasks(group)
                group.create_task(self._works.run(group), name="distil")
                group.create_task(self._beat(), name="beat")
                group.create_task(self._dropping(), name="drop")
                group.create_task(self._hand_over(), name="handover")
                await self._welcome_peer()
                await self._read()
        except* (ChannelDown, SessionBroken, ProtocolError) as faults:
            leaves = _leaves(faults)
            why = [str(e) for e in leaves]
            if any(isinstance(e, ChannelDown) for e in leaves):
                self.session.close()
        return "; ".join(dict.fromkeys(why)) or "the session ended"

    def _hear_module(self, serial: str) -> None:
        if serial and serial != self.peer_module:
            self.peer_module = serial
            self.on_peer_module(serial)

    async def _dropping(self) -> None:
        await self._drop.wait()
        raise SessionBroken(self._drop_why)

    def _stranger(self, why: str) -> None:
        """Somebody asked for a session and is not our peer."""
        self._event("session.refused", why=why)
        if self.status.phase is Phase.HANDSHAKE:
            self._phase(Phase.HANDSHAKE, why)

    def _lost(self, why: str) -> None:
        self._works.drop(why)
        self._settled = False
        if not self.session.restarted:
            self.session.close()
        self.status.peer_ready = False
        self._phase(Phase.OFFLINE, why)
        self._event("session.lost", why=why)

    async def _welcome_peer(self) -> None:
        journal = self.desk.journal
        if self.ME is Direction.ALICE:
            # She decides: what she did not commit is aborted, whatever Bob has prepared.
            for doubt in journal.in_doubt():
                await self.desk.blocking(journal.abort, doubt.uuid)
        doubts = tuple((d.uuid.bytes, d.round) for d in journal.in_doubt())
        pool = journal.pool
        await self.session.send(Welcome(pool.next_round, pool.written, pool.since_begun(journal.store.commits), doubts))
        await self._send_note()

    async def _read(self) -> None:
        while True:
            message, data = await self.session.receive()
            self._heard = self.desk.clock.monotonic()
            unread = 0
            match message:
                case Note():
                    s = self.status
                    s.peer_state, s.peer_why, s.peer_ready = message.state, message.why, message.ready
                    self._changed.set()
                    self._hear_module(message.module)
                case Welcome():
                    await self._greeted(message)
                case Rekey():
                    self.on_rekey(message.fingerprint)
                case Recipients():
                    self._compare_recipients(message)
                case HandoverMessage():
                    if self.handover is not None:
                        self.handover.hear(message)
                case BlockMessage():
                    unread = self._mail.post(message, data)
                case _:
                    await self._dispatch(message, data)
            waiting_bytes = self._sift_inbox.waiting_bytes + self._mail.waiting_bytes
            if max(unread, self._sift_inbox.qsize()) > MOST_UNREAD or waiting_bytes > MOST_UNREAD_BYTES:
                raise ProtocolError("the far end talks without being asked")

    async def _greeted(self, welcome: Welcome) -> None:
        if self._welcome is not None:
            raise ProtocolError("a second WELCOME in one session")
        self._welcome = welcome
        self._welcomed.set()
        self._event("session.open", peer=self.session.peer_serial)
        self._phase(Phase.IDLE, "connected")
        try:
            await self.desk.blocking(self.desk.journal.pool.skip_to, welcome.next_round)
        except PoolRefused as e:
            self._pool_fault = str(e)
        await self._on_welcome(welcome)
        self._changed.set()

    def _compare_recipients(self, far: Recipients) -> None:
        """Keys belong to pairs of recipients, so both sites must deal them alike."""
        pairs = pairs_of(self.desk, self.settings.key_bits)
        self._recipients_differ = difference(pairs, far.shares, far.key_bits)
        if self._recipients_differ is not None:
            self._event("recipients.differ", why=self._recipients_differ)
        self._changed.set()

    async def _hand_over(self) -> None:
        await self._welcomed.wait()
        pairs = pairs_of(self.desk, self.settings.key_bits)
        names, shares, sizes = zip(*((p.name, p.share, p.key_bits) for p in pairs), strict=True)
        await self.session.send(Recipients(names, shares, sizes))
        if self.handover is not None:
            await self.handover.session(self.session.send)

    def _compare_pools(self) -> None:
        """Once nothing is in doubt, both pools and stores must have seen the same commits."""
        journal, welcome = self.desk.journal, self._welcome
        if welcome is None:
            return
        mine = (journal.pool.since_begun(journal.store.commits), journal.pool.written)
        if mine != (welcome.commits, welcome.pool_bytes):
            self._pool_fault = (
                f"the pools differ: {mine[0]} blocks and {mine[1]} bytes here, {welcome.commits} and "
                f"{welcome.pool_bytes} at the far module; re-key the pair"
            )
            self._event("pool.differs", why=self._pool_fault)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.settings.note_s)
            quiet = self.desk.clock.monotonic() - self._heard
            if quiet > self.settings.silence_s:
                raise SessionBroken(f"the far module has been silent for {quiet:.0f} s")
            await self._send_note()
            self._changed.set()

    async def _send_note(self) -> None:
        state, why = self._note
        blocked = self._why_no_keys()
        await self._try_send(
            Note(state or self.status.phase.value, blocked or why, blocked is None, self.module_serial)
        )
        await self.offer_rekey()
        pool = self.desk.journal.pool
        self.status.pool_rounds, low = pool.rounds_left, pool.low
        if low and not self.status.pool_low:
            self._event("pool.low", rounds=pool.rounds_left)
        self.status.pool_low = low

    async def _try_send(self, message: Message) -> None:
        """For what may be lost with the session: the reader finds out about a cut."""
        try:
            await self.session.send(message)
        except (ChannelDown, SessionBroken):
            return


def _leaves(group: BaseExceptionGroup[Exception]) -> list[BaseException]:
    out: list[BaseException] = []
    for e in group.exceptions:
        out += _leaves(e) if isinstance(e, BaseExceptionGroup) else [e]
    return out


def honour_cancellation() -> None:
    """A TaskGroup that fails at the moment when its task is cancelled from outside reports the failure only; whoever
    handles that failure must not go on as if nothing else had happened. (The group's body must be running when a
    child fails, else Python 3.11 leaves a request to cancel behind that nobody made.)"""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def block_id(raw: bytes) -> UUID:
    """Raises ProtocolError."""
    if len(raw) != 16:
        raise ProtocolError("a block id has 16 bytes")
    return UUID(bytes=raw)
