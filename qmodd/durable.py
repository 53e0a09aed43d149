"""Small files that are there as a whole, the old one or the new one, whatever happens at whatever moment."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes | str, mode: int = 0o666) -> None:
    """On disk when it returns: file, name and directory. `mode` goes through the umask. Raises OSError."""
    new = path.with_suffix(".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        write_all(file, data.encode() if isinstance(data, str) else data)
        os.fsync(file)
    finally:
        os.close(file)
    os.replace(new, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Names that were made, changed or removed in it are on disk when it returns. Raises OSError."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_all(file: int, data: bytes | bytearray) -> None:
    """Every byte, in as many calls as that takes. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
