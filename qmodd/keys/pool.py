"""The authentication pool: shared secret bits addressed by (direction, round, phase), used once, then refilled.

It starts as a pre-shared file of at least 64 KiB brought by hand. One *round* serves one block, whether it becomes a
key or not. That a round is used is durable before its first tag leaves; a round is never given twice. Every committed
block puts a fixed number of its secret bits back, in the order of commits, so both sides' pools stay identical. The
file is a ring: logical byte `b` lies at `b` modulo its capacity.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from qmodd.crypto import mac
from qmodd.keys.records import wiped
from qmodd.keys.store import Database

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


class Pool:
    """`path` is the ring file, made from the pre-shared file `start` when it does not exist yet."""

    def __init__(self, path: Path, start: Path, database: Database, low_rounds: int = 64) -> None:
        self._path = path
        self._db = database
        self.low_rounds = low_rounds
        if not self._row():
            self._begin(start)
        self._fd = os.open(path, os.O_RDWR)
        size = os.fstat(self._fd).st_size
        self.capacity = (size - SECRET_BYTES) // ROUND_BYTES * ROUND_BYTES
        self.secret = bytearray(os.pread(self._fd, SECRET_BYTES, 0))

    def __repr__(self) -> str:
        return f"Pool({self._path.name!r})"

    def _begin(self, start: Path) -> None:
        data = bytearray(_read_secret_file(start))
        with wiped(data):
            if len(data) < MINIMUM_BYTES:
                raise PoolRefused(f"{start}: {len(data)} bytes; at least {MINIMUM_BYTES} are needed")
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            written = (len(data) - SECRET_BYTES) // ROUND_BYTES * ROUND_BYTES
        with self._db.transaction() as db:
            db.execute("INSERT INTO pool VALUES (1, ?, 0)", (written,))

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
        with wiped(part):
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


def _read_secret_file(path: Path) -> bytes:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        data = path.read_bytes()
    except OSError as e:
        raise PoolRefused(f"{path}: cannot be read: {e.strerror}") from None
    if mode & 0o077:
        raise PoolRefused(f"{path}: mode {mode:04o} lets others read it; allowed is 0600")
    return data
