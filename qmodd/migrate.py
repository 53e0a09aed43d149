"""Schema versions of the module's databases, forward and one version back.

The version is SQLite's `user_version`. A migration only adds tables, indices and columns with defaults, so a program
of the version before goes on working on a file that a newer one has brought up; more than one version newer is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Migration:
    """Statements that bring a database from `version - 1` to `version`. Version 1 is written with `IF NOT EXISTS`,
    because files from before versions were counted hold its tables already."""

    version: int
    up: tuple[str, ...]


class SchemaTooNew(Exception):
    """A database that a program more than one version newer has written."""

    def __init__(self, name: str, found: int, known: int) -> None:
        super().__init__(
            f"{name}: written by a newer program (schema version {found}); this one knows version {known} and works "
            f"with {known + 1} at most: install the newer program again, or one that knows version {found - 1}"
        )
        self.found, self.known = found, known


def version_of(connection: sqlite3.Connection) -> int:
    """0 for an empty database and for one from before versions were counted."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def bring_up(connection: sqlite3.Connection, name: str, migrations: Sequence[Migration]) -> int:
    """Run what is missing, all of it or nothing, and return the version of the file.

    `connection` is in autocommit mode (isolation_level None) and in no transaction. Raises SchemaTooNew, and
    sqlite3.DatabaseError for a file that is no database.
    """
    known = [m.version for m in migrations]
    if known != list(range(1, len(known) + 1)):
        raise ValueError(f"{name}: migrations {known} are not numbered from 1 on")
    found = version_of(connection)
    if found > len(known) + 1:
        raise SchemaTooNew(name, found, len(known))
    if found >= len(known):
        return found
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been faster.
        found = version_of(connection)
        for migration in migrations[found:]:
            for statement in migration.up:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {max(found, len(known))}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return max(found, len(known))
