"""Where secrets lie: files that only their owner may read, and credentials that the system's manager unseals.

A credential (systemd's LoadCredentialEncrypted=) is a file below $CREDENTIALS_DIRECTORY, on a file system that only the
service sees and that is never swapped. A configuration names it `credential:NAME` where it could name a file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

PREFIX = "credential:"
DIRECTORY = "CREDENTIALS_DIRECTORY"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class NoCredential(Exception):
    """A credential that this process has not been given; says which, and how it gets one."""


def is_credential(text: str) -> bool:
    return text.startswith(PREFIX)


def credential(text: str, environ: Mapping[str, str]) -> Path:
    """The file of `credential:NAME`. Raises NoCredential where there is no such name, or nobody gives credentials."""
    name = text.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise NoCredential("a credential's name is 1 to 64 letters, digits, '.', '_' or '-', e.g. credential:kek")
    directory = environ.get(DIRECTORY)
    if not directory:
        raise NoCredential(
            f"${DIRECTORY} is not set: only a service whose unit has LoadCredentialEncrypted={name}:... or "
            f"LoadCredential={name}:... is given it; name a file instead where there is no such unit"
        )
    return Path(directory) / name


def too_open(path: Path, environ: Mapping[str, str] | None = None) -> str | None:
    """Why the mode of a secret's file is refused; None when it is in order. Raises OSError.

    A credential of a service that is not root's is readable by an access list, which shows in the mode as 0440.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    allowed = 0o440 if _is_given(path, os.environ if environ is None else environ) else 0o700
    if mode & 0o077 & ~allowed:
        return f"mode {mode:04o} lets others read it; allowed is 0600"
    return None


def _is_given(path: Path, environ: Mapping[str, str]) -> bool:
    directory = environ.get(DIRECTORY)
    return bool(directory) and path.parent == Path(directory or "")
