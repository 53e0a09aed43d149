"""Looking at a receiver's store from outside, read-only, while the receiver runs."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from qmodd.crypto import mac
from qmodd.keys.records import wiped
from qmodd.keys.store import StoreRefused, load_kek
from qmodd.receiver.sealing import STORE_KEY_FILE, KeyAad
from qmodd.receiver.table import STORE_FILE, WITH_BYTES, KeyTable

_TIMEOUT_S = 5.0
_KEYS = (
    "SELECT h.key_id, h.link_id, h.state, h.not_after, h.sealed, h.batch_uuid, b.data_key FROM held h "
    "JOIN batch b ON b.sender_kid = h.sender_kid AND b.batch_uuid = h.batch_uuid "
    "WHERE h.sealed IS NOT NULL ORDER BY h.seq"
)


@contextmanager
def _reader(store: Path) -> Iterator[sqlite3.Connection | None]:
    """None before the receiver's first start. Raises sqlite3.DatabaseError when the file is none of ours."""
    path = store / STORE_FILE
    if not path.exists():
        yield None
        return
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_TIMEOUT_S)
    try:
        created = db.execute("SELECT COUNT(*) FROM sqlite_master WHERE name IN ('held', 'batch')").fetchone()[0]
        yield db if created == 2 else None
    finally:
        db.close()


def read_digests(store: Path, store_key: Path | None = None, states: Sequence[str] | None = None) -> dict[str, str]:
    """SHA-256 (hex) by key id of the keys whose bytes are in the store, in the given states (None: all).

    Compares both sites without showing a key. Empty before the receiver's first start. Raises StoreRefused without
    the store key, sqlite3.DatabaseError when the file is none of ours.
    """
    with _reader(store) as db:
        if db is None:
            return {}
        rows = db.execute(_KEYS).fetchall()
    kek = load_kek(store_key or store / STORE_KEY_FILE)
    with wiped(kek):
        try:
            return _digests(rows, kek, WITH_BYTES if states is None else states)
        except mac.WrongTag as e:
            raise StoreRefused(f"{store / STORE_FILE}: {e}") from None


def read_states(store: Path) -> dict[str, str]:
    """State of every key id in the store; ids that were revoked before a key came are `revoked`."""
    with _reader(store) as db:
        if db is None:
            return {}
        forbidden = {str(i): "revoked" for (i,) in db.execute("SELECT key_id FROM forbidden")}
        return forbidden | {str(i): str(s) for i, s in db.execute("SELECT key_id, state FROM held")}


def digests(table: KeyTable, states: Sequence[str]) -> dict[str, str]:
    """As `read_digests`, of the store that this process has open."""
    found = {}
    for key in table.select("sealed IS NOT NULL ORDER BY seq"):
        if key.state in states:
            opened = table.open(key)
            with wiped(opened):
                found[key.key_id] = hashlib.sha256(opened).hexdigest()
    return found


def _digests(rows: list[tuple[object, ...]], kek: bytearray, states: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    data_keys: dict[bytes, bytearray] = {}
    try:
        for key_id, link, state, not_after, sealed, batch, wrapped in rows:
            if str(state) not in states:
                continue
            if not (isinstance(sealed, bytes) and isinstance(batch, bytes) and isinstance(wrapped, bytes)):
                continue
            if batch not in data_keys:
                data_keys[batch] = mac.unseal(kek, wrapped, b"data-key|" + batch)
            aad = KeyAad(str(key_id), str(link), str(state), int(str(not_after)))
            key = mac.unseal(data_keys[batch], sealed, aad.to_bytes())
            with wiped(key):
                found[str(key_id)] = hashlib.sha256(key).hexdigest()
    finally:
        for data_key in data_keys.values():
            mac.wipe(data_key)
    return found
