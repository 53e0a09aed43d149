"""What goes out of the receiver's store: each usable key once, and never again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from qmodd.clock import Clock
from qmodd.crypto import mac
from qmodd.receiver.split import Direction
from qmodd.receiver.table import Held, KeyTable, Row


@dataclass(frozen=True)
class HeldKey:
    """A key on its way out; whoever gets it wipes it."""

    key_id: UUID
    key: bytearray = field(repr=False)


def wipe_all(keys: Sequence[HeldKey]) -> None:
    for key in keys:
        mac.wipe(key.key)


class Gone(Exception):
    """Keys that cannot be handed out: why, by id. `later`: asking again may help, for all of them."""

    def __init__(self, why: dict[UUID, str], *, later: bool) -> None:
        super().__init__("; ".join(f"{i}: {w}" for i, w in why.items()))
        self.why = why
        self.later = later


@dataclass(frozen=True)
class HandOut:
    """The bytes of what it gives are destroyed in the store before the caller has them: a crash in between loses
    a key, but none goes out twice. A clock that is not synchronised judges no lifetime."""

    table: KeyTable
    clock: Clock

    def available(self, *, bits: int | None = None, direction: Direction | None = None) -> int:
        """How many keys `take` could give now."""
        where, values = self._usable(bits, direction)
        return int(str(self.table.rows(f"SELECT COUNT(*) FROM held WHERE {where}", *values)[0][0]))

    def take(
        self, to: str, at_most: int, *, bits: int | None = None, direction: Direction | None = None
    ) -> list[HeldKey]:
        """Usable keys, oldest first, handed out to `to` when the transaction around it ends. Raises StoreRefused."""
        with self.table.transaction():
            where, values = self._usable(bits, direction)
            return self._give(self.table.select(f"{where} ORDER BY seq LIMIT ?", *values, at_most), to)

    def take_ids(self, to: str, ids: Sequence[UUID], direction: Direction | None = None) -> list[HeldKey]:
        """These keys, all or none. Raises Gone, StoreRefused."""
        with self.table.transaction():
            found: list[Row] = []
            gone: dict[UUID, tuple[str, bool]] = {}
            for key_id in ids:
                key = self.table.find(key_id)
                refusal = self._refusal(key, direction)
                if refusal is not None:
                    gone[key_id] = refusal
                elif key is not None:
                    found.append(key)
            if gone:
                raise Gone({i: why for i, (why, _) in gone.items()}, later=all(soon for _, soon in gone.values()))
            return self._give(found, to)

    def _usable(self, bits: int | None, direction: Direction | None) -> tuple[str, list[object]]:
        terms, out = ["state = ?"], list[object]([Held.USABLE])
        for name, value in (("direction", direction), ("bits", bits)):
            if value is not None:
                terms.append(f"{name} = ?")
                out.append(value)
        if self.clock.utc_synchronised():
            now = self.clock.utc().timestamp()
            terms.append("not_before <= ? AND not_after >= ?")
            out += [now, now]
        return " AND ".join(terms), out

    def _refusal(self, key: Row | None, direction: Direction | None) -> tuple[str, bool] | None:
        """Why the key cannot be handed out, and whether that passes."""
        if key is None:
            return "not found", False
        if direction is not None and key.direction != direction:
            return "not a key of this master", False
        if key.state is Held.PENDING:
            return "not yet usable at this site", True
        if key.state is not Held.USABLE:
            return str(key.state).replace("_", " ") + " before", False
        now = self.clock.utc().timestamp() if self.clock.utc_synchronised() else None
        if now is not None and now > key.not_after:
            return "expired", False
        if now is not None and now < key.not_before:
            return "not valid yet", True
        return None

    def _give(self, rows: Sequence[Row], to: str) -> list[HeldKey]:
        out: list[HeldKey] = []
        try:
            with self.table.transaction() as db:
                for row in rows:
                    out.append(HeldKey(UUID(row.key_id), self.table.open(row)))
                    self.table.end(row, Held.HANDED_OUT)
                    db.execute(
                        "UPDATE held SET handed_to = ?, handed_at = ? WHERE key_id = ?",
                        (to, int(self.clock.utc().timestamp()), row.key_id),
                    )
        except BaseException:
            wipe_all(out)
            raise
        return out
