"""What both sides do alike while they distil one block: talk, keep the transcript, count the leak, decide."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from qmodd.clock import Clock
from qmodd.crypto import mac
from qmodd.keys import protocol
from qmodd.keys.accounting import BlockAccount
from qmodd.keys.allocation import Allocation, Pair
from qmodd.keys.authentication import BlockAuthentication, Direction, Transcript
from qmodd.keys.blocks import RawBlock
from qmodd.keys.counts import BlockCounts
from qmodd.keys.estimation import KeyLength, Proof, key_length_interval
from qmodd.keys.fields import MAX_TEXT
from qmodd.keys.journal import Journal
from qmodd.keys.kernels import Kernels
from qmodd.keys.material import Held
from qmodd.keys.plans import agreement
from qmodd.keys.protocol import Abort, Auth, BlockMessage, Message
from qmodd.keys.reconciliation import LAST_ROUND, Help, Mode, Plan, disclosed_bits
from qmodd.keys.records import BlockRecord
from qmodd.keys.settings import EngineSettings, LengthPolicy, LengthRule, OnBlock, OnEvent
from qmodd.keys.stations import Box
from qmodd.keys.verification import TAG_BITS, collision_bound
from qmodd.randomness import Randomness

T = TypeVar("T")
B = TypeVar("B", bound=BlockMessage)
Send = Callable[[Message | bytes], Awaitable[None]]
# What is said after the seed: at most this much more transcript for the last tags to cover.
_LAST_WORDS = 4096


class Blocking:
    """Runs calls that wait for the disk: in a thread, or in place where time is simulated."""

    def __init__(self, threads: bool) -> None:
        self._threads = threads

    async def __call__(self, function: Callable[..., T], *arguments: object) -> T:
        if self._threads:
            return await asyncio.to_thread(function, *arguments)
        return function(*arguments)


@dataclass
class Desk:
    """All that distillation needs beside the block itself."""

    settings: EngineSettings
    kernels: Kernels
    journal: Journal
    clock: Clock
    randomness: Randomness
    blocking: Blocking
    on_event: OnEvent
    on_block: OnBlock
    length_rule: LengthRule = key_length_interval
    # Over this side's devices, serial numbers and firmware, for records; "" before they are known.
    firmware_sha256: str = ""


class BlockAborted(Exception):
    """This block yields no key, on either side; `by_peer` tells who said so first."""

    def __init__(self, why: str, by_peer: bool = False) -> None:
        super().__init__(why)
        self.by_peer = by_peer


class Conversation:
    """Messages about one block. Everything said goes into its transcript, in each direction's order."""

    def __init__(self, raw: RawBlock, me: Direction, send: Send, box: Box) -> None:
        self.raw = raw
        self.me = me
        self.transcript: Transcript = raw.transcript
        self._send = send
        self._box = box
        self.authentication: BlockAuthentication | None = None

    async def send(self, message: BlockMessage) -> None:
        data = protocol.encode(message)
        self.transcript.add(self.me, data)
        await self._send(data)

    async def expect(self, kind: type[B]) -> B:
        """The next message about this block. Raises BlockAborted if it is an abort, or not the one that is due."""
        message, data = await self._next(kind)
        self.transcript.add(self.me.peer, data)
        return message

    async def _next(self, kind: type[B]) -> tuple[B, bytes]:
        message, data = await self._box.get()
        if isinstance(message, Abort):
            raise BlockAborted(message.why, by_peer=True)
        if not isinstance(message, kind):
            raise BlockAborted(f"{type(message).__name__} came where {kind.__name__} was due")
        return message, data

    async def abort(self, why: str) -> None:
        await self._send(Abort(self.raw.run, self.raw.block, why[:MAX_TEXT]))

    async def send_tag(self, phase: int) -> None:
        tag = self._auth().tag(self.me, phase)
        await self.send(Auth(self.raw.run, self.raw.block, phase, tag))

    async def check_tag(self, phase: int) -> None:
        """Raises BadTag. The tag covers everything that was said before it."""
        auth, data = await self._next(Auth)
        if auth.phase != phase:
            raise BlockAborted(f"tag of phase {auth.phase} came where phase {phase} was due")
        self._auth().check(self.me.peer, phase, auth.tag)
        self.transcript.add(self.me.peer, data)

    def _auth(self) -> BlockAuthentication:
        if self.authentication is None:
            raise RuntimeError("no round of the pool was claimed for this block")
        return self.authentication

    def eps_auth(self) -> float:
        """Bound of the probability that any of the block's four tags, or its verdict's token, is forged."""
        size = sum(map(len, self.transcript.parts())) + _LAST_WORDS
        return 4 * mac.forgery_bound(size) + 2 * 2.0**-128


class HelpLedger:
    """Bits of a block that became public: syndromes, help in its proper order, the verification tag."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._round: dict[int, int] = {}
        self.leak_bits = plan.syndrome_bits + TAG_BITS

    @property
    def frames(self) -> int:
        return self._plan.frames

    @property
    def short(self) -> bool:
        """Frames of throughput mode."""
        return self._plan.mode is Mode.THROUGHPUT

    @property
    def frames_helped(self) -> int:
        return len(self._round)

    def add(self, wanted: Help) -> None:
        """Raises BlockAborted if Bob asks for a frame or a round that is not due: help is never repeated or skipped."""
        for frame, round_ in wanted:
            if not 0 <= frame < self._plan.frames or round_ != self._round.get(frame, 0) + 1 or round_ > LAST_ROUND:
                raise BlockAborted(f"help of round {round_} for frame {frame} is not due")
            self._round[frame] = round_
            self.leak_bits += disclosed_bits(self._plan, frame, round_)


@dataclass(frozen=True)
class Share:
    """What becomes of a block's secret: `replenish` bits for the pool, then `keys`; the rest is dropped on both sides
    (carrying it over would tie a block to the next one's fate)."""

    length: KeyLength
    replenish: int
    keys: int
    key_bits: int
    allocation: Allocation

    @property
    def used(self) -> int:
        """Bits that privacy amplification really makes."""
        return self.replenish + self.allocation.bits(self.keys)

    @property
    def dropped(self) -> int:
        return self.length.length_bits - self.used


def check_hope(desk: Desk, raw: RawBlock, counts: BlockCounts) -> None:
    """After the X errors: raises BlockAborted if no Z error rate could make the bound positive, or X errs too much."""
    limit = desk.settings.qber_limit
    if counts.qber_x > limit:
        raise BlockAborted(f"QBER_X {counts.qber_x:.2%} is above the limit of {limit:.2%}")
    best = _length(desk, raw, counts, TAG_BITS)
    if best.length_bits <= 0:
        raise BlockAborted(f"no key can come of this block: {best.why_zero or 'the bound is not positive'}")


def decide(
    desk: Desk,
    raw: RawBlock,
    counts: BlockCounts,
    leak_bits: int,
    on_observed: Callable[[KeyLength], None] = lambda _: None,
) -> Share:
    """The block's length and its division. Raises BlockAborted if it pays for no key. `on_observed` is told what its
    own counts give, whether that becomes its length or not."""
    limit, plan = desk.settings.qber_limit, raw.plan
    if counts.qber_z > limit:
        raise BlockAborted(f"QBER_Z {counts.qber_z:.2%} is above the limit of {limit:.2%}")
    if collision_bound(counts.total_z) > plan.eps_cor:
        raise BlockAborted(f"eps_cor {plan.eps_cor:g} is more than a {TAG_BITS}-bit verification tag gives")
    length = _length(desk, raw, counts, leak_bits)
    on_observed(length)
    if desk.settings.length is LengthPolicy.FIXED:
        length = _fixed(raw, length)
    replenish = 8 * plan.replenish_bytes
    allocation = Allocation.by(pairs_of(desk, plan.key_bits))
    keys = allocation.keys_in(length.length_bits - replenish)
    if keys < 1:
        why = length.why_zero or (
            f"{length.length_bits} secret bits are too few for {replenish} bits of "
            f"authentication and one key of {allocation.size(0)} bits"
        )
        raise BlockAborted(why)
    return Share(length, replenish, keys, plan.key_bits, allocation)


def pairs_of(desk: Desk, key_bits: int) -> tuple[Pair, ...]:
    """The pairs of recipients that a block of this plan is dealt to."""
    return desk.settings.pairs or tuple(Pair(name, 1, key_bits) for name in desk.journal.store.recipients)


def _length(desk: Desk, raw: RawBlock, counts: BlockCounts, leak_bits: int) -> KeyLength:
    plan = raw.plan
    try:
        return desk.length_rule(Proof(plan.proof), counts, raw.mu, plan.p_mu, plan.eps_sec, plan.eps_cor, leak_bits)
    except ValueError as e:
        raise BlockAborted(f"key length cannot be computed: {e}") from None


def _fixed(raw: RawBlock, observed: KeyLength) -> KeyLength:
    agreed = agreement(raw.plan)
    if agreed is None:
        raise BlockAborted("no thresholds of a fixed length are agreed yet: this block only tells what they may be")
    return agreed.decide(observed)


async def held(desk: Desk, raw: RawBlock) -> Held:
    """The block where the kernels run; it goes there now if it is not there yet."""
    material = raw.material
    return material if isinstance(material, Held) else await desk.kernels.hold(material)


async def check_account(
    desk: Desk, raw: RawBlock, block: Held, counts: BlockCounts, share: Share, leak_bits: int, *, decoder: bool
) -> None:
    """What the stages counted against what was said and decided. Raises BlockAborted, after an event of its own."""
    tally = await desk.kernels.tally(block)
    account = BlockAccount(
        counts, raw.plan.n_z, leak_bits, TAG_BITS, share.used, share.dropped, share.length.length_bits
    )
    wrong = list(account.disagreements(tally, decoder=decoder))
    if wrong:
        why = f"the stages count differently: {'; '.join(wrong)}"
        desk.on_event("block.disagrees", {"run": raw.run, "block": raw.block, "why": why})
        raise BlockAborted(why)


@dataclass(frozen=True)
class Outcome:
    """What is known of a block when its record is written."""

    uuid: str
    round: int
    counts: BlockCounts
    share: Share
    leak_bits: int
    frames: int
    frames_helped: int
    eps_auth: float
    seed: bytes
    allocations: int
    created: float
    not_after: float
    station_seconds: Mapping[str, float]


def make_record(desk: Desk, raw: RawBlock, role: str, o: Outcome) -> BlockRecord:
    plan, material = raw.plan, raw.material
    return BlockRecord(
        uuid=o.uuid,
        role=role,
        link=desk.settings.link_id,
        run=raw.run,
        block=raw.block,
        round=o.round,
        proof=plan.proof,
        n_z=o.counts.n_z,
        m_z=o.counts.m_z,
        n_x=o.counts.n_x,
        m_x=o.counts.m_x,
        mu=raw.mu,
        leak_bits=o.leak_bits,
        length_bits=o.share.length.length_bits,
        replenish_bits=o.share.replenish,
        key_bits=o.share.key_bits,
        keys=o.share.keys,
        dropped_bits=o.share.dropped,
        frames=o.frames,
        frames_helped=o.frames_helped,
        eps_sec=plan.eps_sec,
        eps_cor=plan.eps_cor,
        eps_auth=o.eps_auth,
        seed_sha256=mac.digest(o.seed).hex(),
        calibration=plan.calibration,
        allocations=o.allocations,
        first_slot=material.first_slot,
        end_slot=material.end_slot,
        created=o.created,
        not_after=o.not_after,
        seconds=max(0.0, desk.clock.monotonic() - raw.began),
        alice_module=plan.module,
        bob_module=raw.bob_module,
        theorem=o.share.length.theorem,
        firmware_sha256=desk.firmware_sha256,
        station_seconds=o.station_seconds,
        pairs=tuple(zip(o.share.allocation.shares, o.share.allocation.sizes, strict=True)),
        recipients=tuple(p.name for p in pairs_of(desk, plan.key_bits)),
    )


def with_m_z(counts: BlockCounts, m_z: tuple[int, ...]) -> BlockCounts:
    """Raises BlockAborted if these cannot be the Z errors of the block."""
    full = replace(counts, m_z=m_z)
    try:
        full.check()
    except ValueError as e:
        raise BlockAborted(f"impossible counts: {e}") from None
    return full
