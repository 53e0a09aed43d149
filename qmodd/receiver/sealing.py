"""The receiver's store key: a file of 32 bytes that only its owner may read, or a credential of the service manager."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from qmodd.crypto import mac
from qmodd.keys.records import wiped
from qmodd.keys.store import KEK_BYTES, StoreRefused, load_kek
from qmodd.randomness import Randomness

STORE_KEY_FILE = "store.key"
CREDENTIAL = "credential:"
_NONCE = 12


def key_path(text: str, base: Path, environ: Mapping[str, str]) -> Path:
    """`credential:NAME` is NAME in the service manager's directory; everything else a path relative to `base`.

    Raises StoreRefused when there is no such directory.
    """
    if not text.startswith(CREDENTIAL):
        return base / text
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise StoreRefused(f"store_key = {text!r}: the service manager gives no credentials (CREDENTIALS_DIRECTORY)")
    return Path(directory) / text.removeprefix(CREDENTIAL)


def make_key(path: Path, randomness: Randomness) -> None:
    """A new key, on disk as a whole before it has its name; one that is there already stays. Raises OSError."""
    new = path.with_suffix(f".{os.getpid()}.new")  # receiver and KME may start at the same moment
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        f.write(randomness.bytes(KEK_BYTES))
        f.flush()
        os.fsync(f.fileno())
    with suppress(FileExistsError):  # unlike a rename it never replaces a key that another process has just made
        os.link(new, path)
    new.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@dataclass(frozen=True)
class KeyAad:
    """What a sealed key is bound to; changed with a raw write to the database, it does not open any more."""

    key_id: str
    link: str
    state: str
    not_after: int

    def to_bytes(self) -> bytes:
        return f"{self.key_id}|{self.link}|{self.state}|{self.not_after}".encode()


class Seals:
    """AES-256-GCM at rest: keys under their batch's data key, data keys under the store key."""

    def __init__(self, kek: bytearray, randomness: Randomness) -> None:
        self._kek = kek
        self._random = randomness

    @classmethod
    def load(cls, path: Path, randomness: Randomness) -> Self:
        """Raises StoreRefused."""
        return cls(load_kek(path), randomness)

    def __repr__(self) -> str:
        return "Seals(...)"

    def wipe(self) -> None:
        mac.wipe(self._kek)

    def new_data_key(self, batch: bytes) -> tuple[bytearray, bytes]:
        """A fresh data key, to be wiped by the caller, and the same wrapped."""
        key = bytearray(self._random.bytes(KEK_BYTES))
        return key, mac.seal(self._kek, self._random.bytes(_NONCE), key, b"data-key|" + batch)

    def data_key(self, wrapped: bytes, batch: bytes) -> bytearray:
        """To be wiped by the caller. Raises StoreRefused: another store key, or changed bytes."""
        try:
            return mac.unseal(self._kek, wrapped, b"data-key|" + batch)
        except mac.WrongTag as e:
            raise StoreRefused(f"receiver's store: data key: {e}") from None

    def seal(self, data_key: bytearray, key: bytearray, aad: KeyAad) -> bytes:
        return mac.seal(data_key, self._random.bytes(_NONCE), key, aad.to_bytes())

    @staticmethod
    def open(data_key: bytearray, sealed: bytes, aad: KeyAad) -> bytearray:
        """To be wiped by the caller. Raises StoreRefused."""
        try:
            return mac.unseal(data_key, sealed, aad.to_bytes())
        except mac.WrongTag as e:
            raise StoreRefused(f"receiver's store: key {aad.key_id}: {e}") from None

    def reseal(self, data_key: bytearray, sealed: bytes, before: KeyAad, after: KeyAad) -> bytes:
        """The same key bound to another state. Raises StoreRefused."""
        key = self.open(data_key, sealed, before)
        with wiped(key):
            return self.seal(data_key, key, after)
