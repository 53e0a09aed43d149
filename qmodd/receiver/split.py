"""Which of two masters may take a key: both sites see it from the key's id alone, without asking each other."""

from __future__ import annotations

import hashlib
from typing import Literal
from uuid import UUID

_LABEL = b"qmodd-key-direction-v1"

Direction = Literal[0, 1]


def direction_of(key_id: UUID) -> Direction:
    """Half of all keys go each way; nobody can tell a key's bits from it."""
    return 1 if hashlib.sha256(_LABEL + key_id.bytes).digest()[0] & 1 else 0


def direction_of_master(master: str, slave: str) -> Direction:
    """The master whose name is the smaller one (as bytes) takes the keys of direction 0. Raises ValueError."""
    if master == slave:
        raise ValueError(f"{master!r} cannot be master and slave of itself")
    return 0 if master.encode() < slave.encode() else 1
