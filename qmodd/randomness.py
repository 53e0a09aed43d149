"""Injected randomness: the operating system's generator in production, a seeded one in simulated time and in tests."""

from __future__ import annotations

import random
import secrets
from typing import Protocol
from uuid import UUID


class Randomness(Protocol):
    def bytes(self, n: int) -> bytes: ...
    def uuid(self) -> UUID: ...


class SystemRandomness:
    """The operating system's generator."""

    def bytes(self, n: int) -> bytes:
        return secrets.token_bytes(n)

    def uuid(self) -> UUID:
        return UUID(bytes=secrets.token_bytes(16), version=4)


class SeededRandomness:
    """Repeatable, for tests and simulated time only; never wired by `qmodd core`."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def bytes(self, n: int) -> bytes:
        return self._random.randbytes(n)

    def uuid(self) -> UUID:
        return UUID(bytes=self._random.randbytes(16), version=4)
