"""Messages of the service channel: one type byte, then a CBOR array of the fields in order.

The order of messages is that of reference keys, "The service channel, message by message". Decoding believes nothing:
sizes, ranges and types are checked against the annotations of the message classes, and ProtocolError is the only
exception it raises. What a message may say about detections is fixed here: never a tag, a detector, or a time within
a slot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_type_hints

from qmodd.cbor import Malformed, check_form
from qmodd.cbor import decode as decode_cbor
from qmodd.cbor import encode as encode_cbor
from qmodd.keys.fields import CHECK_OF, MAX_ITEMS, InDoubt, Pairs, ProtocolError

PROTOCOL_VERSION = 3
# The relay carries frames of 8 MiB; the session's header and tag and the door's own fields go on top.
MAX_MESSAGE_BYTES = (8 << 20) - 4096


class Message:
    """Base of all messages; `TYPE` is the first byte on the wire."""

    TYPE: int


M = TypeVar("M", bound=Message)
_BY_TYPE: dict[int, type[Message]] = {}
_CHECKS: dict[type[Message], tuple[Callable[[Any], Any], ...]] = {}
# Data items that a message may have at most: its array, its fields, and what is in them (three for a pair).
_MOST_ITEMS: dict[type[Message], int] = {}
_ITEMS_IN: dict[Any, int] = dict.fromkeys((int, float, str, bytes, bool), 1)
_ITEMS_OF_A_PAIR = 3


def _message(number: int) -> Callable[[type[M]], type[M]]:
    def register(cls: type[M]) -> type[M]:
        cls.TYPE = number
        _BY_TYPE[number] = cls
        hints = get_type_hints(cls)
        _CHECKS[cls] = tuple(CHECK_OF[hints[f.name]] for f in fields(cls))  # type: ignore[arg-type]
        inside = [_ITEMS_IN.get(hint, 1 + _ITEMS_OF_A_PAIR * MAX_ITEMS) for hint in hints.values()]
        _MOST_ITEMS[cls] = 1 + sum(inside)
        return cls

    return register


@_message(0x01)
@dataclass(frozen=True)
class Hello(Message):
    """Opens a session. `answers` is the nonce of the HELLO that this one answers, or empty."""

    version: int
    role: str
    serial: str
    link: str
    nonce: bytes
    answers: bytes


@_message(0x02)
@dataclass(frozen=True)
class Welcome(Message):
    """First message under the session's keys, from each side: what the journals and the pool say.

    It is not part of HELLO, because an old HELLO can be played back and an old journal must not be believed.
    """

    next_round: int
    pool_bytes: int
    commits: int
    in_doubt: InDoubt


@_message(0x03)
@dataclass(frozen=True)
class Note(Message):
    """Sent every second: state of the far module, for display; `ready` asks for keys. Its absence ends the session.
    `module` is the serial of its photonic module, "" before that is known."""

    state: str
    why: str
    ready: bool
    module: str = ""


@_message(0x04)
@dataclass(frozen=True)
class Stop(Message):
    """Keying ends now."""

    why: str


@_message(0x05)
@dataclass(frozen=True)
class Rekey(Message):
    """This module has another pre-shared pad, of that fingerprint, and changes over once the far one has it, too."""

    fingerprint: bytes


@_message(0x10)
@dataclass(frozen=True)
class Light(Message):
    """Bob asks for calibration light; `scale` multiplies the nominal mean photon number."""

    number: int
    mode: int
    state: int
    intensity: int
    scale: float


@_message(0x11)
@dataclass(frozen=True)
class LightOk(Message):
    number: int


@_message(0x12)
@dataclass(frozen=True)
class LightNo(Message):
    number: int
    why: str


@_message(0x20)
@dataclass(frozen=True)
class Plan(Message):
    """Everything that is fixed before the first block of a run (reference pair B4, message 0).

    `mu` are the calibrated intervals of the intensities (signal first), `p_mu` their probabilities. Slots whose
    index is a multiple of `pilot_every` are pilots and never key (0: there are none). `module` is the serial of Alice's
    photonic module. `agreed` are the thresholds of a fixed length (s_z0, s_z1, phi_z, leak_bits), or nothing.
    """

    run: int
    source_run: int
    sync_slot: int
    key_slot: int
    slot_now: int
    period_ps: float
    bin_ps: float
    mu: Pairs
    p_mu: tuple[float, ...]
    p_x: float
    proof: str
    eps_sec: float
    eps_cor: float
    n_z: int
    key_bits: int
    replenish_bytes: int
    half_gate_ps: float
    holdoff: int
    pilot_every: int
    calibration: str
    module: str = ""
    agreed: tuple[float, ...] = ()


@_message(0x21)
@dataclass(frozen=True)
class Intensities(Message):
    """Intervals of the intensities from this block on; sent before the block's first detection."""

    run: int
    block: int
    mu: Pairs


@_message(0x22)
@dataclass(frozen=True)
class Synced(Message):
    """`module` is the serial of Bob's photonic module."""

    run: int
    first_slot: int
    module: str = ""


@_message(0x23)
@dataclass(frozen=True)
class NotSynced(Message):
    """No synchronisation, or the frame was lost later on: the run is over."""

    run: int
    why: str


@_message(0x24)
@dataclass(frozen=True)
class Detect(Message):
    run: int
    data: bytes


@_message(0x25)
@dataclass(frozen=True)
class Basis(Message):
    run: int
    data: bytes


@_message(0x26)
@dataclass(frozen=True)
class Tally(Message):
    run: int
    data: bytes


class BlockMessage(Message):
    """Messages about one closed block."""

    run: int
    block: int


@_message(0x30)
@dataclass(frozen=True)
class BlockClose(BlockMessage):
    run: int
    block: int
    round: int
    n_z: tuple[int, ...]
    n_x: tuple[int, ...]


@_message(0x31)
@dataclass(frozen=True)
class XErrors(BlockMessage):
    run: int
    block: int
    m_x: tuple[int, ...]


@_message(0x32)
@dataclass(frozen=True)
class Syndrome(BlockMessage):
    """`qber` and `mode` are what the code was chosen for, `code` is the digest of its definition."""

    run: int
    block: int
    qber: float
    mode: int
    code: bytes
    data: bytes


@_message(0x33)
@dataclass(frozen=True)
class HelpWanted(BlockMessage):
    """Frames that failed, each with the round of disclosure it needs; empty: all corrected."""

    run: int
    block: int
    frames: tuple[int, ...]
    rounds: tuple[int, ...]


@_message(0x34)
@dataclass(frozen=True)
class FrameHelp(BlockMessage):
    run: int
    block: int
    pieces: tuple[bytes, ...]


@_message(0x35)
@dataclass(frozen=True)
class Verify(BlockMessage):
    run: int
    block: int
    key: bytes
    tag: bytes


@_message(0x36)
@dataclass(frozen=True)
class Result(BlockMessage):
    """Z errors per intensity, bits disclosed and length of the secret, as Bob counts them."""

    run: int
    block: int
    ok: bool
    m_z: tuple[int, ...]
    leak: int
    length: int


@_message(0x37)
@dataclass(frozen=True)
class Auth(BlockMessage):
    """One-time tag over the block's transcript so far. Phase 0: sifting up to RESULT; phase 1: seed and prepare."""

    run: int
    block: int
    phase: int
    tag: bytes


@_message(0x38)
@dataclass(frozen=True)
class Seed(BlockMessage):
    run: int
    block: int
    length: int
    seed: bytes


@_message(0x39)
@dataclass(frozen=True)
class Prepare(BlockMessage):
    """Times are seconds of UTC by Alice's clock; `allocations` is the number of recipient pairs, `shares` and `sizes`
    (bits of a key) are by pair what the block's keys are dealt by."""

    run: int
    block: int
    uuid: bytes
    created: float
    not_after: float
    allocations: int
    shares: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()


@_message(0x3A)
@dataclass(frozen=True)
class Prepared(BlockMessage):
    run: int
    block: int
    uuid: bytes


@_message(0x3B)
@dataclass(frozen=True)
class Abort(BlockMessage):
    run: int
    block: int
    why: str


@_message(0x40)
@dataclass(frozen=True)
class Commit(Message):
    """Alice's verdict on a prepared block, with the one-time token that only she can know before."""

    uuid: bytes
    verdict: bool
    token: bytes


@_message(0x41)
@dataclass(frozen=True)
class Committed(Message):
    """Bob has done what the verdict says."""

    uuid: bytes
    verdict: bool


@_message(0x42)
@dataclass(frozen=True)
class Recipients(Message):
    """Pairs of recipients as this side has them, in order, once a session: names at this site, shares, key sizes in
    bits. Both sides must have the same shares and sizes."""

    names: tuple[str, ...]
    shares: tuple[int, ...]
    key_bits: tuple[int, ...]


class HandoverMessage(Message):
    """Messages about keys on their way to the recipients; `numbers` are first and one past the last of each range of
    key numbers of a committed block, `level` is a `handover_ledger.Level`."""

    uuid: bytes
    level: int
    numbers: tuple[int, ...]


@_message(0x50)
@dataclass(frozen=True)
class KeysAt(HandoverMessage):
    """How far these keys are at this site. Said again until it was heard."""

    uuid: bytes
    level: int
    numbers: tuple[int, ...]


@_message(0x51)
@dataclass(frozen=True)
class KeysHeard(HandoverMessage):
    """It is durable here that the far site said so."""

    uuid: bytes
    level: int
    numbers: tuple[int, ...]


def encode(message: Message) -> bytes:
    """Type byte and body. Raises ValueError if that is more than the channel carries."""
    values = [getattr(message, f.name) for f in fields(message)]  # type: ignore[arg-type]
    data = bytes([message.TYPE]) + encode_cbor(values)
    if len(data) > MAX_MESSAGE_BYTES:
        raise ValueError(f"{type(message).__name__}: {len(data)} bytes; a message has at most {MAX_MESSAGE_BYTES}")
    return data


def decode(data: bytes) -> Message:
    """Raises ProtocolError and nothing else."""
    cls = _BY_TYPE.get(data[0]) if data else None
    if not 2 <= len(data) <= MAX_MESSAGE_BYTES:
        kind = "a message" if cls is None else cls.__name__
        raise ProtocolError(f"{kind} of {len(data)} bytes; a message has 2 to {MAX_MESSAGE_BYTES}")
    if cls is None:
        raise ProtocolError(f"unknown message type {data[0]:#04x}")
    try:
        check_form(data[1:], _MOST_ITEMS[cls])
        values = decode_cbor(data[1:])
    except Malformed as e:
        raise ProtocolError(f"{cls.__name__}: {e}") from None
    checks = _CHECKS[cls]
    if type(values) is not list or len(values) != len(checks):
        raise ProtocolError(f"{cls.__name__}: not an array of {len(checks)} fields")
    try:
        return cls(*(check(v) for check, v in zip(checks, values, strict=True)))
    except ProtocolError as e:
        raise ProtocolError(f"{cls.__name__}: {e}") from None
