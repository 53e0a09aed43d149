"""Secret files destroyed for good, and the mark by which a destruction that was interrupted is completed.

The mark is on disk before the first byte goes. It says what was begun, by whom and why, and afterwards what could not
be destroyed, by digest: such a file counts as gone until another one lies in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from qmodd.durable import sync_directory, write_all, write_whole
from qmodd.secret_files import DIRECTORY

FILE = "zeroise.json"
_PASSES = (b"\xff", b"\x00")
_CHUNK = 1 << 16


def destroy(path: Path) -> None:
    """Overwritten in place, on disk, then removed, the directory synced. A file that is not there is destroyed.

    Raises OSError. A symbolic link is removed after what it points to.
    """
    real = Path(os.path.realpath(path))
    try:
        file = os.open(real, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        path.unlink(missing_ok=True)
        return
    try:
        overwrite(file)
    finally:
        os.close(file)
    for name in {real, path}:
        name.unlink(missing_ok=True)
        sync_directory(name.parent)


def overwrite(file: int) -> None:
    """Every byte of an open file, on disk when it returns. Raises OSError."""
    size = os.fstat(file).st_size
    for byte in _PASSES:
        os.lseek(file, 0, os.SEEK_SET)
        for at in range(0, size, _CHUNK):
            write_all(file, byte * min(_CHUNK, size - at))
        os.fsync(file)


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal; "" for one that cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


@dataclass(frozen=True)
class Mark:
    """`done`: every file has been gone through. `kept`: digest by path of what could not be destroyed."""

    why: str
    by: str
    at: str
    done: bool = False
    kept: Mapping[str, str] = field(default_factory=dict)
    why_kept: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Erasure:
    """`files` by what they are, in the order in which they are destroyed. `mark` None: nothing was begun."""

    path: Path
    files: Mapping[str, Path]
    mark: Mark | None = field(init=False)

    def __post_init__(self) -> None:
        self.mark = _load(self.path)

    def begin(self, mark: Mark) -> bool:
        """False when it was begun before: the first reason stands. Raises OSError where the mark cannot be stored; the
        files may and should be destroyed nevertheless."""
        if self.mark is not None:
            return False
        self.mark = mark
        self._store(mark)
        return True

    def destroy_files(self, *names: str, step: Callable[[str], None] = lambda name: None) -> dict[str, str]:
        """Those named, all if none is; why by name for what could not be destroyed. `step` is told before each."""
        kept: dict[str, str] = {}
        for name in names or tuple(self.files):
            step(name)
            try:
                destroy(self.files[name])
            except OSError as e:
                kept[name] = f"{self.files[name]}: {e.strerror or type(e).__name__}{_hint(self.files[name])}"
        return kept

    def finish(self, kept: Mapping[str, str], done: bool = True) -> None:
        """What could not be destroyed is known; `done`: everything was gone through. Raises OSError."""
        assert self.mark is not None
        digests = {name: digest_of(self.files[name]) for name in kept}
        self.mark = replace(self.mark, done=done, kept=digests, why_kept=dict(kept))
        self._store(self.mark)

    def missing(self) -> list[str]:
        """Secrets that have to be brought anew before the module can make keys: not there, or the old ones."""
        kept = self.mark.kept if self.mark is not None else {}
        return [
            f"{name} ({path}{', still the old one' if path.exists() else ''})"
            for name, path in self.files.items()
            if name in BROUGHT and (not path.exists() or kept.get(name) == digest_of(path))
        ]

    def renewed(self) -> None:
        """New secrets are in their places: the mark goes. Raises OSError."""
        self.path.unlink(missing_ok=True)
        sync_directory(self.path.parent)
        self.mark = None

    def _store(self, mark: Mark) -> None:
        write_whole(self.path, json.dumps(asdict(mark), indent=1), 0o600)


# Without these a module makes no keys; a person brings them.
KEK, PRE_SHARED, IDENTITY = "key-encryption key", "pre-shared key", "signing key"
BROUGHT = (KEK, PRE_SHARED, IDENTITY)
NEXT_PRE_SHARED, RING = "next pre-shared key", "authentication pool"


def _hint(path: Path) -> str:
    given = os.environ.get(DIRECTORY)
    if given and path.parent == Path(given):
        return " (a credential: delete its sealed original by hand)"
    return ""


def _load(path: Path) -> Mark | None:
    try:
        raw = json.loads(path.read_bytes())
        return Mark(str(raw["why"]), str(raw["by"]), str(raw["at"]), raw["done"] is True, raw["kept"], raw["why_kept"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        # It is written as a whole; whatever lies there, somebody began to destroy.
        return Mark("the mark of an earlier destruction cannot be read", "unknown", "")


def leftovers(path: Path) -> None:
    """What an interrupted `write_whole` may have left beside a file."""
    with suppress(OSError):
        destroy(path.with_suffix(".new"))
