"""Who said it: a filter for every frame of a session, and the proof for every block.

The *filter* (HMAC-SHA256, truncated to 128 bits, keys from HKDF of the pre-shared secret and both nonces) keeps
strangers, replays and reordering away from the engine and keeps them from burning pads. It is computational, and no key
rests on it.

The *proof* is Wegman-Carter: Poly1305 under a fresh 32-byte one-time key from the pool over the block's whole
transcript, one tag per phase and direction (reference keys, "Verification, privacy amplification, authentication").
A key exists only after all four tags have verified; each may be forged with probability at most 8 ceil(L/16)/2^106,
and the sum is added to the block's eps_sec. The verdict on a prepared block carries a one-time token from the same
round, so that nobody else can commit or abort it, in this session or a later one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from qmodd.crypto import mac

FILTER_TAG_BYTES = 16
NONCE_BYTES = 16
_HELLO, _FRAME = b"H", b"S"
_SEQ_BYTES = 8


class Direction(IntEnum):
    """Who speaks."""

    ALICE = 0
    BOB = 1

    @property
    def peer(self) -> Direction:
        return Direction(1 - self)


class SessionBroken(Exception):
    """The session cannot go on (a frame is missing, or the far end is silent); a new handshake follows."""


class BadTag(Exception):
    """A block's authentication tag or a verdict's token is wrong: the transcripts differ or somebody else spoke."""


def seal_hello(secret: mac.Secret, speaker: Direction, body: bytes) -> bytes:
    """A HELLO frame: `H`, body, tag under the static key of the speaker."""
    return _HELLO + body + mac.keyed_hash(_hello_key(secret, speaker), body, length=FILTER_TAG_BYTES)


def open_hello(secret: mac.Secret, speaker: Direction, frame: bytes) -> bytes | None:
    """Body of a genuine HELLO frame of that speaker (it may be an old one), else None."""
    if frame[:1] != _HELLO or len(frame) < 1 + FILTER_TAG_BYTES:
        return None
    body, tag = frame[1:-FILTER_TAG_BYTES], frame[-FILTER_TAG_BYTES:]
    good = mac.keyed_hash(_hello_key(secret, speaker), body, length=FILTER_TAG_BYTES)
    return body if mac.equal(tag, good) else None


def is_hello(frame: bytes) -> bool:
    return frame[:1] == _HELLO


def _hello_key(secret: mac.Secret, speaker: Direction) -> bytes:
    return mac.derive(secret, b"", b"qmodd-hello-v1" + bytes([speaker]))


@dataclass
class FilterCounters:
    """Frames that were dropped without effect."""

    forged: int = 0
    replayed: int = 0


class FrameFilter:
    """Seals and opens the frames of one session, each with a sequence number that must not skip."""

    def __init__(self, secret: mac.Secret, me: Direction, nonce_alice: bytes, nonce_bob: bytes, link: str) -> None:
        salt = nonce_alice + nonce_bob
        keys = [mac.derive(secret, salt, b"qmodd-session-v1|" + bytes([d]) + link.encode()) for d in Direction]
        self._out, self._in = keys[me], keys[me.peer]
        self._sent = 0
        self._received = 0
        self.counters = FilterCounters()

    def seal(self, message: bytes) -> bytes:
        head = _FRAME + self._sent.to_bytes(_SEQ_BYTES, "big")
        self._sent += 1
        return head + message + mac.keyed_hash(self._out, head, message, length=FILTER_TAG_BYTES)

    def open(self, frame: bytes) -> bytes | None:
        """The message; None if the frame is forged or was seen before (counted). Raises SessionBroken on a gap."""
        start = 1 + _SEQ_BYTES
        if frame[:1] != _FRAME or len(frame) < start + FILTER_TAG_BYTES:
            self.counters.forged += 1
            return None
        head, message, tag = frame[:start], frame[start:-FILTER_TAG_BYTES], frame[-FILTER_TAG_BYTES:]
        if not mac.equal(tag, mac.keyed_hash(self._in, head, message, length=FILTER_TAG_BYTES)):
            self.counters.forged += 1
            return None
        seq = int.from_bytes(head[1:], "big")
        if seq < self._received:
            self.counters.replayed += 1
            return None
        if seq > self._received:
            raise SessionBroken(f"{seq - self._received} message(s) of the far end are missing")
        self._received += 1
        return message


class Pads(Protocol):
    """What authentication asks of the pool: the one-time bytes at (direction, round, phase)."""

    def pad(self, direction: int, round_: int, phase: int) -> bytearray: ...


TOKEN_PHASE = 2
TOKEN_BYTES = 16


@dataclass
class Transcript:
    """Everything both sides said about one block, each direction in its own order: pipelining does not matter."""

    said: tuple[list[bytes], list[bytes]] = field(default_factory=lambda: ([], []))

    def add(self, speaker: Direction, message: bytes) -> None:
        self.said[speaker].append(message)

    def extend(self, other: Transcript) -> None:
        for speaker in Direction:
            self.said[speaker].extend(other.said[speaker])

    def parts(self) -> list[bytes]:
        """Unambiguous: every message and every direction is preceded by its length."""
        out: list[bytes] = []
        for messages in self.said:
            out.append(len(messages).to_bytes(8, "big"))
            for m in messages:
                out += [len(m).to_bytes(8, "big"), m]
        return out


class BlockAuthentication:
    """The four tags of one block and what they cost."""

    def __init__(self, pads: Pads, link: str, round_: int, transcript: Transcript) -> None:
        self._pads = pads
        self._head = b"qmodd-block-v1|" + link.encode() + b"|" + round_.to_bytes(8, "big")
        self._round = round_
        self._done: set[tuple[int, int]] = set()
        self.transcript = transcript
        self.eps = 0.0

    def tag(self, speaker: Direction, phase: int) -> bytes:
        """16 bytes over the transcript so far. Raises RuntimeError if asked twice: a pad is used once."""
        key, parts = self._once(speaker, phase)
        try:
            return mac.one_time_tag(key, parts)
        finally:
            mac.wipe(key)

    def check(self, speaker: Direction, phase: int, tag: bytes) -> None:
        """Raises BadTag."""
        key, parts = self._once(speaker, phase)
        try:
            if not mac.one_time_tag_ok(key, parts, tag):
                raise BadTag(f"authentication of phase {phase} by {speaker.name.lower()} failed")
        finally:
            mac.wipe(key)

    def _once(self, speaker: Direction, phase: int) -> tuple[bytearray, list[bytes]]:
        if (speaker, phase) in self._done:
            raise RuntimeError(f"the pad of {speaker.name.lower()}, phase {phase} is used up")
        self._done.add((speaker, phase))
        parts = [self._head, bytes([speaker, phase]), *self.transcript.parts()]
        self.eps += mac.forgery_bound(sum(map(len, parts)))
        return self._pads.pad(speaker, self._round, phase), parts


def verdict_token(pads: Pads, round_: int, verdict: bool) -> bytes:
    """16 one-time bytes that say commit, or 16 others that say abort; guessed with probability 2^-128."""
    pad = pads.pad(Direction.ALICE, round_, TOKEN_PHASE)
    token = bytes(pad[:TOKEN_BYTES] if verdict else pad[TOKEN_BYTES:])
    mac.wipe(pad)
    return token


def check_token(pads: Pads, round_: int, verdict: bool, token: bytes) -> None:
    """Raises BadTag."""
    if not mac.equal(token, verdict_token(pads, round_, verdict)):
        raise BadTag("the verdict on a prepared block carries a wrong token")
