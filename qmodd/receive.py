"""Reference receiver of key batches, the KMS side: opens envelopes, stores keys, signs acknowledgements.

`Receiver` is the whole of it without MQTT; `run` serves it over MQTT with reconnection. Its store is one SQLite file of
mode 0600. To compare both sites without revealing a key, `read_digests(store)` gives SHA-256 by key id from outside,
read-only, while the receiver runs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import signal
import sqlite3
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qmodd.clock import Clock, SystemClock
from qmodd.crypto.suites import BadKeyFile, BadSignature, CannotOpen, VerifyingKey, wipe
from qmodd.identity import KEY_ACK_CONTEXT, Recipient, SignerPublic
from qmodd.keys.envelope import SUITE, Envelope, EnvelopeError, Header, unix
from qmodd.messages import ROOT, KeyAck, KeyAckBody, KeyStatus
from qmodd.randomness import SystemRandomness
from qmodd.uplink.mqtt_link import Backoff, BrokerSettings, Link, keep_link

WINDOW = 64
SESSION_EXPIRY_S = 3600
STORE_FILE = "keys.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (batch_uuid BLOB PRIMARY KEY, sender_kid BLOB NOT NULL, ack BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS keys (
    key_id TEXT PRIMARY KEY, key BLOB NOT NULL, link_id TEXT NOT NULL, batch_uuid BLOB NOT NULL,
    not_before INTEGER NOT NULL, not_after INTEGER NOT NULL, state TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS senders (kid BLOB PRIMARY KEY, top INTEGER NOT NULL, seen BLOB NOT NULL) STRICT;
"""


class NotBelieved(Exception):
    """Bytes that are not an envelope of a known sender: not acknowledged, nothing kept."""


@dataclass(frozen=True)
class Window:
    """The last 64 sequence numbers of one sender: bit i of `seen` stands for `top - i`."""

    top: int = 0
    seen: int = 0

    def accept(self, seq: int) -> Window | None:
        """The window with seq in it; None when seq was seen, or is too old to tell."""
        if seq > self.top:
            shifted = self.seen << (seq - self.top) if seq - self.top < WINDOW else 0
            return Window(seq, (shifted | 1) & (1 << WINDOW) - 1)
        bit = 1 << (self.top - seq)
        if self.top - seq >= WINDOW or self.seen & bit:
            return None
        return Window(self.top, self.seen | bit)


@dataclass
class Receiver:
    """One recipient. `senders` are the public keys of the modules it believes, by serial number."""

    store: Path
    identity: Recipient
    senders: Mapping[str, VerifyingKey]
    clock: Clock
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._by_kid = {key.kid: key for key in self.senders.values()}
        self.store.mkdir(parents=True, exist_ok=True)
        path = self.store / STORE_FILE
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None)
        for statement in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            self._db.execute(f"PRAGMA {statement}")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def process(self, data: bytes) -> bytes:
        """An envelope's bytes -> the signed acknowledgement (a KeyAck payload). Raises NotBelieved.

        Order after reference security: signatures; a known batch gets its first acknowledgement again; recipient,
        suite, expiry, window; open; import; commit; acknowledge. Durable when it returns.
        """
        envelope = self._believed(data)
        known = self._db.execute("SELECT ack FROM batches WHERE batch_uuid = ?", (envelope.header.batch_uuid,))
        if (row := known.fetchone()) is not None:
            self.counts["repeated"] += 1
            return bytes(row[0])
        self._db.execute("BEGIN IMMEDIATE")
        try:
            status = self._import(envelope)
            ack = self._acknowledge(envelope, status)
            self._db.execute(
                "INSERT INTO batches VALUES (?, ?, ?)",
                (envelope.header.batch_uuid, envelope.header.sender_kid, ack),
            )
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        self.counts.update(status.values())
        return ack

    def digests(self) -> dict[str, str]:
        """SHA-256 (hex) of every key by key id."""
        return _digests(self._db)

    def container(self, limit: int = 128) -> str:
        """The oldest keys as ETSI GS QKD 014 container JSON. This is the one place where keys become text."""
        rows = self._db.execute("SELECT key_id, key FROM keys ORDER BY rowid LIMIT ?", (limit,)).fetchall()
        return json.dumps({"keys": [{"key_ID": i, "key": base64.b64encode(k).decode()} for i, k in rows]})

    def _believed(self, data: bytes) -> Envelope:
        try:
            envelope = Envelope.from_bytes(data)
        except EnvelopeError as e:
            raise NotBelieved(f"malformed: {e}") from None
        sender = self._by_kid.get(envelope.header.sender_kid)
        if sender is None:
            raise NotBelieved("from an unknown sender")
        try:
            envelope.verify(sender)
        except BadSignature as e:
            raise NotBelieved(str(e)) from None
        return envelope

    def _import(self, envelope: Envelope) -> dict[str, KeyStatus]:
        header = envelope.header
        refused = self._refused(header)
        if refused is None and not self._in_window(header):
            refused = "replayed"
        if refused is not None:
            return dict.fromkeys(map(str, header.ids), refused)
        try:
            keys = envelope.open(self.identity.opening)
        except CannotOpen:
            return dict.fromkeys(map(str, header.ids), "cannot_open")
        except EnvelopeError:
            return dict.fromkeys(map(str, header.ids), "wrong_key_size")
        try:
            return {str(i): self._store_key(header, i, key) for i, key in zip(header.ids, keys, strict=True)}
        finally:
            for key in keys:
                wipe(key)

    def _refused(self, header: Header) -> KeyStatus | None:
        if header.recipient_kid != self.identity.opening.public.kid:
            return "wrong_recipient"
        if header.suite != SUITE:
            return "wrong_suite"
        # A lifetime is never judged by a clock that is not synchronised.
        if self.clock.utc_synchronised() and unix(self.clock.utc()) > header.not_after:
            return "expired"
        return None

    def _in_window(self, header: Header) -> bool:
        kid = header.sender_kid
        row = self._db.execute("SELECT top, seen FROM senders WHERE kid = ?", (kid,)).fetchone()
        before = Window(row[0], int.from_bytes(row[1], "big")) if row else Window()
        after = before.accept(header.seq)
        if after is None:
            return False
        self._db.execute(
            "INSERT INTO senders VALUES (?, ?, ?) ON CONFLICT (kid) DO UPDATE SET top = excluded.top, "
            "seen = excluded.seen",
            (kid, after.top, after.seen.to_bytes(8, "big")),
        )
        return True

    def _store_key(self, header: Header, key_id: UUID, key: bytearray) -> KeyStatus:
        known = self._db.execute("SELECT key FROM keys WHERE key_id = ?", (str(key_id),)).fetchone()
        if known is not None:
            return "imported" if bytes(known[0]) == bytes(key) else "id_conflict"
        self._db.execute(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, 'pending')",
            (str(key_id), key, header.link_id, header.batch_uuid, header.not_before, header.not_after),
        )
        return "imported"

    def _acknowledge(self, envelope: Envelope, status: dict[str, KeyStatus]) -> bytes:
        body = KeyAckBody(
            recipient=self.identity.name,
            recipient_kid=self.identity.opening.public.kid.hex(),
            batch_uuid=str(envelope.header.uuid),
            digest=envelope.digest.hex(),
            status=status,
        ).model_dump_json()
        signature = self.identity.signing.sign(body.encode(), KEY_ACK_CONTEXT)
        return KeyAck(body=body, signature=base64.b64encode(signature).decode()).payload()


def _digests(db: sqlite3.Connection) -> dict[str, str]:
    rows = db.execute("SELECT key_id, key FROM keys ORDER BY key_id")
    return {key_id: hashlib.sha256(key).hexdigest() for key_id, key in rows}


def read_digests(store: Path) -> dict[str, str]:
    """SHA-256 (hex) of every key by key id, from the store of a receiver that may be running. Empty before its start.

    Raises sqlite3.DatabaseError when the file is none of ours.
    """
    path = store / STORE_FILE
    if not path.exists():
        return {}
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
    try:
        return _digests(db)
    except sqlite3.OperationalError as e:
        if "no such table" in str(e):  # created, but not yet set up
            return {}
        raise
    finally:
        db.close()


class SenderSettings(BaseModel):
    """A module whose keys are believed; `public` is relative to the configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    serial: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,31}$")]
    public: Path


class ReceiveSettings(BaseModel):
    """Configuration of `qmodd receive`, in TOML. Paths are relative to the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    identity: Path
    store: Path
    broker: BrokerSettings = BrokerSettings()
    sender: Annotated[list[SenderSettings], Field(min_length=1)]


class SettingsError(Exception):
    """One line a fault, with file and field."""


def load_settings(path: Path) -> ReceiveSettings:
    """Raises SettingsError."""
    try:
        settings = ReceiveSettings.model_validate(tomllib.loads(path.read_text()))
    except OSError as e:
        raise SettingsError(f"{path}: cannot be read: {e.strerror}") from None
    except tomllib.TOMLDecodeError as e:
        raise SettingsError(f"{path}: not TOML: {e}") from None
    except ValidationError as e:
        lines = [f"{path}: {'.'.join(map(str, x['loc'])) or 'file'}: {x['msg']}" for x in e.errors()]
        raise SettingsError("\n".join(lines)) from None
    base = path.parent
    senders = [s.model_copy(update={"public": base / s.public}) for s in settings.sender]
    return settings.model_copy(
        update={"identity": base / settings.identity, "store": base / settings.store, "sender": senders}
    )


def open_receiver(settings: ReceiveSettings, clock: Clock) -> Receiver:
    """Raises BadKeyFile."""
    identity = Recipient.load(settings.identity)
    senders = {s.serial: SignerPublic.load(s.public).key for s in settings.sender}
    return Receiver(settings.store, identity, senders, clock)


async def run(settings: ReceiveSettings, receiver: Receiver, say: Callable[[str], None]) -> None:
    """Serve over MQTT until cancelled; reconnects by itself. `say` gets one line per batch and per lost connection."""
    name = receiver.identity.name
    backoff = Backoff(SystemRandomness())

    async def serve(link: Link) -> None:
        await link.subscribe(*(f"{ROOT}/{s.serial}/keys/{name}" for s in settings.sender))
        backoff.reset()
        say(f"{name}: listening at {settings.broker.url}")
        while True:
            message = await link.next_message()
            await _one(receiver, link, message.topic, message.payload, say)

    await keep_link(
        settings.broker,
        f"qmodd-receive-{name}",
        serve,
        backoff,
        lambda why: say(f"{name}: {why}"),
        session_expiry_s=SESSION_EXPIRY_S,
    )


async def _one(receiver: Receiver, link: Link, topic: str, payload: bytes, say: Callable[[str], None]) -> None:
    before = Counter(receiver.counts)
    try:
        ack = receiver.process(payload)
    except NotBelieved as e:
        receiver.counts["not_believed"] += 1
        say(f"{receiver.identity.name}: {topic}: not believed: {e}")
        return
    await link.publish(f"{topic}/ack", ack)
    new = ", ".join(f"{n} {what}" for what, n in sorted((receiver.counts - before).items()))
    say(f"{receiver.identity.name}: batch: {new}; {receiver.counts['imported']} imported since start")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """`qmodd receive`; the chosen function is in `args.run` and returns the exit status."""
    parser = subparsers.add_parser(
        "receive",
        help="reference receiver of key batches",
        description="Opens key batches of the modules it believes, stores the keys, signs acknowledgements.",
        epilog="example: qmodd receive --config kms-alice.toml",
    )
    parser.add_argument("--config", type=Path, required=True, help="TOML: identity, store, [broker] url, [[sender]]")
    parser.add_argument("--json", action="store_true", help="counts per status as last line on stdout")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write stored keys (ETSI GS QKD 014) and exit")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """0 done (stopped by a signal), 2 wrong configuration."""
    try:
        settings = load_settings(args.config)
        receiver = open_receiver(settings, SystemClock())
    except (SettingsError, BadKeyFile) as e:
        sys.stderr.write(f"{e}\n")
        return 2
    try:
        if args.export:
            _export(receiver, args.export)
        else:
            asyncio.run(_until_stopped(settings, receiver))
    finally:
        receiver.close()
    if args.json:
        sys.stdout.write(json.dumps(dict(receiver.counts)) + "\n")
    return 0


def _export(receiver: Receiver, path: Path) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(receiver.container(limit=1_000_000))


async def _until_stopped(settings: ReceiveSettings, receiver: Receiver) -> None:
    def say(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(run(settings, receiver, say), name="receive")
        await stop.wait()
        serving.cancel()
