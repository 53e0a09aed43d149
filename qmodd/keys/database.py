"""The file `keys.db`: SQLite with write-ahead log, full synchronisation and secure deletion."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qmodd.keys.schema import MIGRATIONS
from qmodd.migrate import bring_up


class Database:
    """Two SQLite connections, one to write and one to read, so that a question never waits for a commit to reach the
    disk. Threads take turns to use either; whoever is inside a transaction also reads through it.

    Raises qmodd.migrate.SchemaTooNew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock, self._reading = threading.RLock(), threading.Lock()
        self._writer = 0
        self._open()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "trusted_schema=OFF"):
                self._connection.execute(f"PRAGMA {pragma}").fetchall()
            self.version = bring_up(self._connection, str(self.path), MIGRATIONS)
        except BaseException:
            self._connection.close()
            raise
        self._reader = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._reader.execute("PRAGMA query_only=ON").fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, durable on leaving; may be nested, the outermost one counts."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._writer = threading.get_ident()
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            else:
                self._connection.execute("COMMIT")
            finally:
                self._writer = 0

    def rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        if self._writer == threading.get_ident():
            return self._connection.execute(sql, values).fetchall()
        with self._reading:
            return self._reader.execute(sql, values).fetchall()

    def truncate_log(self) -> None:
        """What was deleted must not survive in the write-ahead log. Inside a transaction: nothing, its end is later."""
        with self._lock:
            if self._connection.in_transaction:
                return
            ((busy, _, _),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if busy:
                with self._reading:
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        with self._lock, self._reading:
            self._reader.close()
            self._connection.close()
