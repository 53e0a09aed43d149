"""Questions to the key store: states, counts, conservation, provenance. None of them changes anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from qmodd.keys.database import Database
from qmodd.keys.handover_ledger import Level, Notice
from qmodd.keys.records import BlockRecord, KeyState
from qmodd.keys.store_errors import StoreRefused


class Lookup:
    """Reads of the key store."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def state_of(self, name: UUID) -> KeyState | None:
        """None if there is no such key (any more)."""
        rows = self.database.rows("SELECT state FROM keys WHERE id = ?", name.bytes)
        return KeyState(str(rows[0][0])) if rows else None

    def block(self, uuid: UUID) -> BlockRecord | None:
        rows = self.database.rows("SELECT record FROM blocks WHERE uuid = ?", uuid.bytes)
        return BlockRecord.from_json(str(rows[0][0])) if rows else None

    def blocks_of(self, ids: Sequence[UUID]) -> list[BlockRecord]:
        """Records of the blocks that these keys come from, oldest first, each once."""
        blocks = {r[0] for i in ids for r in self.database.rows("SELECT block FROM keys WHERE id = ?", i.bytes)}
        found: dict[int, str] = {}
        for block in blocks:
            for seq, record in self.database.rows("SELECT seq, record FROM blocks WHERE uuid = ?", block):
                found[int(str(seq))] = str(record)
        return [BlockRecord.from_json(found[seq]) for seq in sorted(found)]

    def block_ids(self) -> list[UUID]:
        """In the order of their commits."""
        return [_uuid(r[0]) for r in self.database.rows("SELECT uuid FROM blocks ORDER BY seq")]

    def key_ids(self) -> list[UUID]:
        return [_uuid(r[0]) for r in self.database.rows("SELECT id FROM keys ORDER BY seq, number")]

    def select(
        self, *, block: UUID | None = None, created_before: float | None = None, recipient: str | None = None
    ) -> list[UUID]:
        """Keys that meet all that is asked, in the order of their making; `created_before` is UTC, s."""
        sql, values = "SELECT k.id FROM keys k JOIN blocks b ON b.uuid = k.block WHERE 1", list[object]()
        for part, value in (
            ("k.block = ?", None if block is None else block.bytes),
            ("CAST(json_extract(b.record, '$.created') AS REAL) < ?", created_before),
            ("k.recipient = ?", recipient),
        ):
            if value is not None:
                sql += f" AND {part}"
                values.append(value)
        return [_uuid(r[0]) for r in self.database.rows(f"{sql} ORDER BY k.seq, k.number", *values)]

    def not_usable(self) -> list[UUID]:
        """Keys that are not given up and that the recipient here was not told to hand out."""
        return [
            _uuid(r[0])
            for r in self.database.rows(
                "SELECT k.id FROM keys k LEFT JOIN handover h ON h.id = k.id WHERE k.state IN "
                "('distilled', 'delivered', 'acknowledged') AND COALESCE(h.said, 0) = 0 ORDER BY k.seq, k.number"
            )
        ]

    @property
    def commits(self) -> int:
        """Blocks ever committed."""
        return int(str(self.database.rows("SELECT COALESCE(MAX(seq), 0) FROM blocks")[0][0]))

    def waiting(self) -> int:
        """Keys that are distilled and not delivered."""
        return self.totals()[KeyState.DISTILLED]

    def unacknowledged(self, recipient: str) -> int:
        """Keys that are sealed for the recipient and neither acknowledged nor given up."""
        sql = "SELECT COUNT(*) FROM keys WHERE state = ? AND recipient = ?"
        return int(str(self.database.rows(sql, KeyState.DELIVERED, recipient)[0][0]))

    def totals(self) -> dict[str, int]:
        """Number of keys per state, and `created`: their sum at all times."""
        found = {str(s): int(str(n)) for s, n in self.database.rows("SELECT state, n FROM totals")}
        return {s: found.get(s, 0) for s in [*KeyState, "created"]}

    def counts(self) -> dict[str, Any]:
        """Keys per state, altogether and for each recipient; there also those that the recipient may hand out
        (`usable`) and those whose revocation it has not confirmed (`revoking`)."""
        totals = self.totals()
        recipients: dict[str, dict[str, int]] = {}

        def of(name: object) -> dict[str, int]:
            states = [*(s for s in KeyState if s is not KeyState.PURGED), "usable", "revoking"]
            return recipients.setdefault(str(name), dict.fromkeys(map(str, states), 0))

        for name, state, n in self.database.rows("SELECT recipient, state, COUNT(*) FROM keys GROUP BY 1, 2"):
            of(name)[str(state)] = int(str(n))
        for name, usable, revoking in self.database.rows(
            "SELECT k.recipient, SUM(h.mine = 1 AND h.said = 2), SUM(h.mine = 2) FROM handover h "
            "JOIN keys k ON k.id = h.id GROUP BY 1"
        ):
            of(name).update(usable=int(str(usable)), revoking=int(str(revoking)))
        return {
            "created": totals["created"],
            "states": {str(s): totals[s] for s in KeyState},
            "recipients": recipients,
        }

    def audit(self) -> str | None:
        """None if keys are conserved, else what does not add up."""
        t = self.totals()
        if t["created"] != sum(t[s] for s in KeyState):
            return f"{t['created']} keys created but {sum(t[s] for s in KeyState)} accounted for"
        rows = {str(s): int(str(n)) for s, n in self.database.rows("SELECT state, COUNT(*) FROM keys GROUP BY state")}
        for s in KeyState:
            if s is not KeyState.PURGED and rows.get(s, 0) != t[s]:
                return f"{rows.get(s, 0)} keys are {s}, the account says {t[s]}"
        return None

    def provenance(self, key: UUID) -> dict[str, Any] | None:
        """Where a key comes from and where it is; None if there is no such key (any more). Never a bit of it."""
        rows = self.database.rows(
            "SELECT k.state, k.recipient, k.bits, k.number, k.not_after, b.record, h.batch, h.delivered, "
            "h.acknowledged, h.usable, h.ended, h.mine, h.far, h.said, h.why FROM keys k "
            "JOIN blocks b ON b.uuid = k.block LEFT JOIN handover h ON h.id = k.id WHERE k.id = ?",
            key.bytes,
        )
        if not rows:
            return None
        state, recipient, bits, number, not_after, record, batch, *dates, mine, far, said, why = rows[0]
        block = json.loads(str(record))
        names = ("delivered", "acknowledged", "usable", "ended")
        return {
            "key_id": str(key),
            "state": state,
            "recipient": recipient,
            "key_bits": bits,
            "number": number,
            "not_after": _iso(not_after),
            "batch": str(UUID(bytes=batch)) if isinstance(batch, bytes) else "",
            "times": {"created": _iso(block["created"]), **dict(zip(names, map(_iso, dates), strict=True))},
            "here": _name(Level, mine),
            "far": _name(Level, far),
            "notice": _name(Notice, said),
            "why": why or "",
            "block": block,
        }


def _name(kind: type[Level] | type[Notice], value: object) -> str:
    return kind(int(str(value or 0))).name.lower().replace("_", " ")


def _iso(seconds: object) -> str | None:
    if not isinstance(seconds, int | float) or not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _uuid(raw: object) -> UUID:
    if not isinstance(raw, bytes):
        raise StoreRefused("key store: an id is damaged")
    return UUID(bytes=raw)
