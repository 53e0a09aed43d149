"""The two modules' talk about keys on their way to the recipients: what is said and heard, as pure bookkeeping over
the ledger. Words about a block are ranges of key numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from qmodd.keys.fields import ProtocolError
from qmodd.keys.handover_ledger import Level, Untold
from qmodd.keys.journal import Journal
from qmodd.keys.protocol import HandoverMessage, KeysAt, KeysHeard
from qmodd.keys.records import key_id

MOST_RANGES = 8192
MOST_KEYS = 1 << 20


def ranges(numbers: Iterable[int]) -> tuple[int, ...]:
    """First and one past the last of each run of consecutive numbers, ascending."""
    out: list[int] = []
    for n in sorted(set(numbers)):
        if out and out[-1] == n:
            out[-1] = n + 1
        else:
            out += [n, n + 1]
    return tuple(out)


def check_ranges(told: Sequence[int], end: int) -> None:
    """Raises ProtocolError unless these are ascending ranges of numbers below `end`."""
    if len(told) % 2 or len(told) > 2 * MOST_RANGES:
        raise ProtocolError("ranges of key numbers are malformed or too many")
    before = -1
    for first, past in zip(told[::2], told[1::2], strict=True):
        if not before < first < past <= end:
            raise ProtocolError("ranges of key numbers are out of order or beyond the block")
        before = past


def numbers_of(told: Sequence[int], end: int) -> list[int]:
    """The numbers of such ranges. Raises ProtocolError."""
    check_ranges(told, end)
    return [n for first, past in zip(told[::2], told[1::2], strict=True) for n in range(first, past)]


def words(untold: Iterable[Untold]) -> list[KeysAt]:
    """As few messages as say it all."""
    by: dict[tuple[UUID, Level], list[int]] = defaultdict(list)
    for u in untold:
        by[u.block, u.level].append(u.number)
    out = []
    for (block, level), numbers in by.items():
        told = ranges(numbers)
        for at in range(0, len(told), 2 * MOST_RANGES):
            out.append(KeysAt(block.bytes, int(level), told[at : at + 2 * MOST_RANGES]))
    return out


@dataclass
class Heard:
    """What came of the far module's words: what to answer, and how many keys had to be given up."""

    answers: list[HandoverMessage] = field(default_factory=list)
    given_up: int = 0


class Hearing:
    """Takes in the far module's words; blocking. What it answers is durable before."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._store = journal.store

    def hear(self, messages: Sequence[HandoverMessage]) -> Heard:
        """Raises ProtocolError for words that cannot be."""
        heard = Heard()
        if messages:
            with self._store.database.transaction():
                for message in messages:
                    self._one(message, heard)
        if heard.given_up:
            self._store.database.truncate_log()
        return heard

    def _one(self, message: HandoverMessage, heard: Heard) -> None:
        try:
            uuid, level = UUID(bytes=message.uuid), Level(message.level)
        except ValueError:
            raise ProtocolError("a block id or a level is malformed") from None
        record = self._store.block(uuid)
        if record is None:
            check_ranges(message.numbers, MOST_KEYS)
            if isinstance(message, KeysAt):
                self._unknown(uuid, message, heard)
            return
        names = {key_id(uuid, n): n for n in numbers_of(message.numbers, record.keys)}
        there = [i for i in names if self._store.state_of(i) is not None]
        if isinstance(message, KeysHeard):
            with self._store.database.transaction() as db:
                self._store.ledger.far_heard(db, there, level)
            return
        self._take_down(there, level, heard)
        heard.answers.append(KeysHeard(message.uuid, message.level, message.numbers))
        if (gone := [n for i, n in names.items() if i not in set(there)]) and level < Level.GONE:
            # Purged here, so nobody may begin to use them there.
            heard.answers.append(KeysAt(message.uuid, int(Level.CLEAR), ranges(gone)))

    def _take_down(self, ids: Sequence[UUID], level: Level, heard: Heard) -> None:
        with self._store.database.transaction() as db:
            alive = self._store.ledger.far_says(db, ids, level)
            if alive:
                heard.given_up += len(self._store.revoke(alive, "given up at the far site"))
                # A key that had expired here already is at its end without that.
            self._store.completed(db, ids)

    def _unknown(self, uuid: UUID, message: KeysAt, heard: Heard) -> None:
        """A block that is not committed here: its verdict is still to come, or it never was, or the store was lost."""
        if any(doubt.uuid == uuid for doubt in self._journal.in_doubt()):
            return
        heard.answers.append(KeysHeard(message.uuid, message.level, message.numbers))
        if message.level < Level.CLEAR:
            heard.answers.append(KeysAt(message.uuid, int(Level.CLEAR), message.numbers))
