"""What is kept about a block and a key: counts, lengths and provenance, never a bit of a key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from uuid import UUID, uuid5

from qmodd.crypto import mac
from qmodd.keys.allocation import Allocation


class KeyState(StrEnum):
    """States of a key (reference security, "Key store"). A purged key has no row any more, only its count."""

    DISTILLED = "distilled"
    DELIVERED = "delivered"
    ACKNOWLEDGED = "acknowledged"
    EXPIRED = "expired"
    REVOKED = "revoked"
    PURGED = "purged"


# From where a key may get to a state; a key that is there already, or has passed it, stays where it is.
MAY_COME_FROM: dict[KeyState, frozenset[KeyState]] = {
    KeyState.DELIVERED: frozenset({KeyState.DISTILLED}),
    KeyState.ACKNOWLEDGED: frozenset({KeyState.DISTILLED, KeyState.DELIVERED}),
    KeyState.EXPIRED: frozenset({KeyState.DISTILLED, KeyState.DELIVERED}),
    KeyState.REVOKED: frozenset({KeyState.DISTILLED, KeyState.DELIVERED, KeyState.ACKNOWLEDGED}),
    KeyState.PURGED: frozenset(KeyState) - {KeyState.PURGED},
}


@dataclass(frozen=True)
class BlockRecord:
    """Provenance of one block, equal on both sides but for `role`, `firmware_sha256`, `recipients` and seconds. Times
    are seconds of UTC (Alice's). `alice_module`, `bob_module`: serials of the photonic modules that it was made with,
    one each."""

    uuid: str
    role: str
    link: str
    run: int
    block: int
    round: int
    proof: str
    n_z: tuple[int, ...]
    m_z: tuple[int, ...]
    n_x: tuple[int, ...]
    m_x: tuple[int, ...]
    mu: tuple[tuple[float, float], ...]
    leak_bits: int
    length_bits: int
    replenish_bits: int
    key_bits: int
    keys: int
    dropped_bits: int
    frames: int
    frames_helped: int
    eps_sec: float
    eps_cor: float
    eps_auth: float
    seed_sha256: str
    calibration: str
    allocations: int
    first_slot: int
    end_slot: int
    created: float
    not_after: float
    seconds: float = 0.0
    alice_module: str = ""
    bob_module: str = ""
    # What the length relies on, in words; digest over this side's devices, serial numbers and firmware.
    theorem: str = ""
    firmware_sha256: str = ""
    # s that the block spent at each station of this side, by its name.
    station_seconds: Mapping[str, float] = field(default_factory=dict)
    # Share and key size in bits of every pair of recipients; their names at this site.
    pairs: tuple[tuple[int, int], ...] = ()
    recipients: tuple[str, ...] = ()

    @property
    def secret_bits(self) -> int:
        """Of all keys together."""
        return Allocation.of(self).bits(self.keys)

    @property
    def qber_z(self) -> float:
        return sum(self.m_z) / max(1, sum(self.n_z))

    @property
    def qber_x(self) -> float:
        return sum(self.m_x) / max(1, sum(self.n_x))

    def shared(self) -> BlockRecord:
        """What both sides know of the block and must agree on."""
        return replace(self, role="", seconds=0.0, firmware_sha256="", station_seconds={}, recipients=())

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> BlockRecord:
        raw = json.loads(text)
        # Blocks of an older version do not say everything; what a newer one says besides is left out.
        known = {f.name: raw[f.name] for f in fields(cls) if f.name in raw}
        for name in ("n_z", "m_z", "n_x", "m_x"):
            known[name] = tuple(known[name])
        known["pairs"] = tuple((int(share), int(bits)) for share, bits in known.get("pairs", ()))
        known["recipients"] = tuple(known.get("recipients", ()))
        known["mu"] = tuple((float(a), float(b)) for a, b in known["mu"])
        return cls(**known)


def key_id(block: UUID, index: int) -> UUID:
    """The id under which both sides keep key number `index` of a block."""
    return uuid5(block, f"qmodd-key-{index}")


class SecretBits:
    """The amplified bits of one block, packed most significant bit first; wiped after use, shown nowhere."""

    __slots__ = ("_data", "bits")

    def __init__(self, data: bytearray, bits: int) -> None:
        if len(data) != (bits + 7) // 8:
            raise ValueError(f"{len(data)} bytes for {bits} bits")
        self._data = data
        self.bits = bits

    @property
    def data(self) -> bytearray:
        return self._data

    def wipe(self) -> None:
        mac.wipe(self._data)

    def __repr__(self) -> str:
        return f"SecretBits({self.bits} bits)"


@contextmanager
def wiped_on_error(secret: SecretBits) -> Iterator[None]:
    """Wipes the bits if they do not get as far as they should."""
    try:
        yield
    except BaseException:
        secret.wipe()
        raise


@contextmanager
def wiped(*buffers: bytearray) -> Iterator[None]:
    """Wipes the buffers on the way out."""
    try:
        yield
    finally:
        for b in buffers:
            mac.wipe(b)
