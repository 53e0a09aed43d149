"""The authentication pool: shared secret bits addressed by (direction, round, phase), used once, then refilled.

It starts as a pre-shared file of at least 64 KiB brought by hand. One *round* serves one block, whether it becomes a
key or not. That a round is used is durable before its first tag leaves; a round is never given twice. Every committed
block puts a fixed number of its secret bits back, in the order of commits, so both sides' pools stay identical. The
file is a ring: logical byte `b` lies at `b` modulo its capacity.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from qmodd.crypto import mac
from qmodd.durable import sync_directory, write_all
from qmodd.keys.erasure import overwrite
from qmodd.keys.records import wiped
from qmodd.keys.store import Database
from qmodd.secret_files import too_open

MINIMUM_BYTES = 65_536
SECRET_BYTES = 64
# Two directions times two phases of 32 bytes each, and 32 bytes of verdict tokens.
PAD_BYTES = 32
PHASES = 2
ROUND_BYTES = 2 * PHASES * PAD_BYTES + PAD_BYTES
RESERVE_ROUNDS = 2
# The peer's position may be ahead of ours by the rounds that it alone saw begin; more than this is another pool.
MAX_SKIP = 64


class PoolRefused(Exception):
    """The pool cannot be used (missing, too small, empty, used out of order); says why."""


_SCHEMA = """CREATE TABLE IF NOT EXISTS pool_begin (
    one INTEGER PRIMARY KEY CHECK (one = 1), commits INTEGER NOT NULL) STRICT"""


class Pool:
    """`path` is the ring file, made from the pre-shared file `start`, or from those bytes, when it does not exist yet.
    `secret` stays one object, whatever pad it is of."""

    def __init__(self, path: Path, start: Path | bytearray, database: Database, low_rounds: int = 64) -> None:
        self._path = path
        self._db = database
        self._lock = threading.Lock()
        self.low_rounds = low_rounds
        with database.transaction() as db:
            db.execute(_SCHEMA)
        if not self._row():
            self._begin(start)
        self._fd = os.open(path, os.O_RDWR)
        size = os.fstat(self._fd).st_size
        self.capacity = (size - SECRET_BYTES) // ROUND_BYTES * ROUND_BYTES
        self.secret = bytearray(os.pread(self._fd, SECRET_BYTES, 0))

    def __repr__(self) -> str:
        return f"Pool({self._path.name!r})"

    def _begin(self, start: Path | bytearray) -> None:
        data = read_pad(start) if isinstance(start, Path) else start
        with wiped(data):
            _write(self._path, data)
            with self._db.transaction() as db:
                _begin_row(db, len(data))

    def replace(self, data: bytearray, also: Callable[[sqlite3.Connection], None] = lambda db: None) -> None:
        """Begin anew with another pad, durably; the one before is overwritten. `also` runs in the transaction that sets
        the position back.

        The file comes first: a position that was set back never stands beside an old pad. After a crash or an OSError
        at whatever moment it is done again and ends the same; no block may be in work before. The caller wipes `data`.
        Raises PoolRefused when it is too small.
        """
        if len(data) < MINIMUM_BYTES:
            raise PoolRefused(f"{len(data)} bytes; at least {MINIMUM_BYTES} are needed")
        with self._lock:
            old = os.dup(self._fd)
            try:
                self._put(data)
                with self._db.transaction() as db:
                    _begin_row(db, len(data))
                    also(db)
                overwrite(old)
            finally:
                os.close(old)

    def _put(self, data: bytearray) -> None:
        """Another file in the place of the ring, open under the same descriptor."""
        new = self._path.with_suffix(".new")
        _write(new, data)
        file = os.open(new, os.O_RDWR)
        try:
            os.replace(new, self._path)
            sync_directory(self._path.parent)
            os.dup2(file, self._fd)
        finally:
            os.close(file)
        self.secret[:] = os.pread(self._fd, SECRET_BYTES, 0)
        self.capacity = (len(data) - SECRET_BYTES) // ROUND_BYTES * ROUND_BYTES

    def since_begun(self, commits: int) -> int:
        """Of so many blocks committed ever, those since this pad began: what both sides must have in common."""
        rows = self._db.rows("SELECT commits FROM pool_begin")
        return commits - (int(str(rows[0][0])) if rows else 0)

    def _row(self) -> tuple[int, int] | None:
        rows = self._db.rows("SELECT written, next_round FROM pool")
        return (int(str(rows[0][0])), int(str(rows[0][1]))) if rows else None

    def _position(self) -> tuple[int, int]:
        row = self._row()
        if row is None:
            raise PoolRefused("authentication pool: its position is lost; re-key the pair")
        return row

    @property
    def written(self) -> int:
        """Logical bytes ever put in."""
        return self._position()[0]

    @property
    def next_round(self) -> int:
        return self._position()[1]

    @property
    def rounds_left(self) -> int:
        written, next_round = self._position()
        return max(0, written // ROUND_BYTES - next_round)

    @property
    def low(self) -> bool:
        """Time for an alarm: more blocks fail than succeed, or the start was used up."""
        return self.rounds_left < self.low_rounds

    def why_not(self) -> str | None:
        """Why no block may begin, or None. A reserve of two rounds is kept."""
        left = self.rounds_left
        if left > RESERVE_ROUNDS:
            return None
        return f"authentication pool: {left} rounds left, {RESERVE_ROUNDS} are kept in reserve; re-key the pair"

    def skip_to(self, round_: int) -> None:
        """Forget rounds that the peer may have used. Raises PoolRefused if that is too far ahead to be our peer."""
        mine = self.next_round
        if round_ > mine + MAX_SKIP:
            raise PoolRefused(
                f"authentication pool: the peer is at round {round_}, this module at {mine}; "
                "they are not the same pool: re-key the pair"
            )
        if round_ > mine:
            self._use(round_)

    def claim(self, round_: int) -> None:
        """Use up a round and all before it, durably. Raises PoolRefused if it is used, too far ahead, or not there."""
        why = self.why_not()
        if why is not None:
            raise PoolRefused(why)
        mine = self.next_round
        if not mine <= round_ < mine + min(self.rounds_left, MAX_SKIP):
            raise PoolRefused(f"authentication pool: round {round_} asked for, next is {mine}")
        self._use(round_ + 1)

    def _use(self, next_round: int) -> None:
        with self._db.transaction() as db:
            db.execute("UPDATE pool SET next_round = ?", (next_round,))

    def pad(self, direction: int, round_: int, phase: int) -> bytearray:
        """32 bytes of a round that was claimed; the caller wipes them.

        (0, round, 2) are the verdict's tokens. Raises PoolRefused for a round that was not claimed or is overwritten.
        """
        written, next_round = self._position()
        if not max(0, written - self.capacity) <= round_ * ROUND_BYTES or round_ >= next_round:
            raise PoolRefused(f"authentication pool: round {round_} is not in use")
        index = 2 * PHASES if phase == PHASES else PHASES * direction + phase
        if direction not in (0, 1) or not 0 <= phase <= PHASES or (phase == PHASES and direction != 0):
            raise PoolRefused(f"authentication pool: no address ({direction}, {round_}, {phase})")
        with self._lock:
            at = (round_ * ROUND_BYTES + index * PAD_BYTES) % self.capacity
            return bytearray(os.pread(self._fd, PAD_BYTES, SECRET_BYTES + at))

    def stage(self, data: bytearray, round_: int) -> int:
        """Write secret bits of a committed block behind the end, durably, and say where the end will be.

        The end moves by `advance` in the transaction of the commit; until then this may be repeated. What does not
        fit is left out: how much that is depends on round and end only, so it is the same on both sides. The block's
        round and the one before stay readable.
        """
        written, _ = self._position()
        room = max(0, self.capacity - (written - max(0, round_ - 1) * ROUND_BYTES))
        part = data[:room]
        with wiped(part), self._lock:
            at = written % self.capacity
            first = part[: self.capacity - at]
            with wiped(first):
                os.pwrite(self._fd, first, SECRET_BYTES + at)
                if len(first) < len(part):
                    os.pwrite(self._fd, bytes(part[len(first) :]), SECRET_BYTES)
            os.fsync(self._fd)
            return written + len(part)

    def advance(self, written: int) -> None:
        """Make staged bytes part of the pool; call inside the transaction of the commit."""
        with self._db.transaction() as db:
            db.execute("UPDATE pool SET written = ?", (written,))

    def close(self) -> None:
        mac.wipe(self.secret)
        os.close(self._fd)


def _begin_row(db: sqlite3.Connection, size: int) -> None:
    """The position of a pad of `size` bytes of which nothing was used."""
    written = (size - SECRET_BYTES) // ROUND_BYTES * ROUND_BYTES
    commits = int(db.execute("SELECT COALESCE(MAX(seq), 0) FROM blocks").fetchone()[0])
    db.execute("DELETE FROM pool")
    db.execute("INSERT INTO pool (one, written, next_round) VALUES (1, ?, 0)", (written,))
    db.execute("DELETE FROM pool_begin")
    db.execute("INSERT INTO pool_begin (one, commits) VALUES (1, ?)", (commits,))


def forget_position(database: Database) -> None:
    """The pool begins anew, from its pre-shared file, when it is next opened."""
    with database.transaction() as db:
        db.execute("DELETE FROM pool")


def _write(path: Path, data: bytearray) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def read_pad(path: Path) -> bytearray:
    """A pre-shared file, to be wiped by the caller. Raises PoolRefused: not there, open to others, too small."""
    data = bytearray(_read_secret_file(path))
    if len(data) < MINIMUM_BYTES:
        mac.wipe(data)
        raise PoolRefused(f"{path}: {len(data)} bytes; at least {MINIMUM_BYTES} are needed")
    return data


def fingerprint(pad: bytearray, link: str) -> bytes:
    """16 bytes that both holders of a pad know and nobody else can make."""
    return mac.keyed_hash(pad[:SECRET_BYTES], b"qmodd-rekey-v1|" + link.encode())


def _read_secret_file(path: Path) -> bytes:
    try:
        open_to = too_open(path)
        data = path.read_bytes()
    except OSError as e:
        raise PoolRefused(f"{path}: cannot be read: {e.strerror}") from None
    if open_to is not None:
        raise PoolRefused(f"{path}: {open_to}")
    return data
