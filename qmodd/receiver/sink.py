"""Usable keys as files for a key-management entity that takes ETSI GS QKD 014 containers from a directory.

A container is written under a hidden name first; then the store commits that its keys are handed out; then the file
gets its name. After a crash a hidden file whose container was committed gets its name, any other is deleted: each key
is in exactly one container, whenever the power went.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from qmodd.durable import write_all
from qmodd.randomness import Randomness
from qmodd.receiver.container import container
from qmodd.receiver.handing import HandOut

HIDDEN = ".part"


@dataclass(frozen=True)
class FileSink:
    """`keys-<number>-<uuid>.json` in a directory, mode 0600, at most `keys_per_container` keys each.

    `revoked-<notice>.json` names keys that were revoked after they went out. Raises OSError, StoreRefused.
    """

    directory: Path
    hand_out: HandOut
    randomness: Randomness
    keys_per_container: int = 64

    def recover(self) -> None:
        """At start, before the first `flush`."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        table = self.hand_out.table
        for hidden in sorted(self.directory.glob(f".keys-*{HIDDEN}")):
            known = table.rows("SELECT 1 FROM container WHERE uuid = ?", hidden.name.removesuffix(HIDDEN)[-36:])
            if known:
                self._publish(hidden)
            else:
                hidden.unlink()
        for hidden in self.directory.glob(f".revoked-*{HIDDEN}"):
            hidden.unlink()  # not acknowledged, so the notice comes again

    def flush(self) -> int:
        """Everything that is usable goes out; returns the number of keys."""
        total = 0
        while n := self._one():
            total += n
        return total

    def revoked(self, notice: UUID, ids: Sequence[UUID]) -> None:
        """Tell whoever takes the containers; may be repeated."""
        hidden = self.directory / f".revoked-{notice}{HIDDEN}"
        _write(hidden, json.dumps({"notice": str(notice), "key_IDs": [{"key_ID": str(i)} for i in ids]}).encode())
        self._publish(hidden)

    def _one(self) -> int:
        uuid, table = self.randomness.uuid(), self.hand_out.table
        with table.transaction() as db:
            keys = self.hand_out.take("sink", self.keys_per_container)
            if not keys:
                return 0
            number = db.execute("INSERT INTO container (uuid) VALUES (?)", (str(uuid),)).lastrowid
            hidden = self.directory / f".keys-{number:010d}-{uuid}{HIDDEN}"
            _write(hidden, container(keys))
        self._publish(hidden)
        return len(keys)

    @staticmethod
    def _publish(hidden: Path) -> None:
        _rename(hidden, hidden.with_name(hidden.name.removeprefix(".").removesuffix(HIDDEN) + ".json"))


def export(hand_out: HandOut, path: Path, at_most: int) -> int:
    """Usable keys into one container file, mode 0600; returns their number. A file of that name is replaced.

    Cut off between commit and rename, the keys are in `<path>.part`. Raises OSError, StoreRefused.
    """
    hidden = path.with_name(path.name + HIDDEN)
    with hand_out.table.transaction():
        keys = hand_out.take("export", at_most)
        _write(hidden, container(keys))
    _rename(hidden, path)
    return len(keys)


def _write(path: Path, data: bytes) -> None:
    """On disk, its name too, when it returns."""
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(file, data)
        os.fsync(file)
    finally:
        os.close(file)
    _sync(path.parent)


def _rename(hidden: Path, path: Path) -> None:
    os.replace(hidden, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
