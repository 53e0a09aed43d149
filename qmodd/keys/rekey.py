"""A pair gets another pre-shared pad: what is staged, what was used before, and when the two modules change over.

Pure but for one small file. A pad that was ever in use is refused: used twice, it ends the security of the pair.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from qmodd.durable import write_whole

FILE = "rekey.json"
# Where the next pad is brought to, in the state directory.
NEXT_FILE = "pre-shared.next"
# Without a session for so long, a module changes over alone: the far one was re-keyed, or is not there.
ALONE_S = 60.0


class PadRefused(Exception):
    """The pad cannot be the next one; says why."""


@dataclass(frozen=True)
class Staged:
    """A pad that was approved and waits. `switching`: the change has begun and is done again after a crash."""

    fingerprint: str
    by: str
    at: str
    switching: bool = False


@dataclass
class RekeyFile:
    """Durable before it is in force. Raises OSError."""

    path: Path
    staged: Staged | None = None
    used: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            raw = json.loads(self.path.read_bytes())
            self.used = tuple(str(u) for u in raw["used"])
            self.staged = Staged(**raw["staged"]) if raw["staged"] else None
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError):
            # Which pads were used is lost with it; the one in use is still known by itself.
            self.path.replace(self.path.with_suffix(".damaged"))

    def stage(self, fingerprint: str, in_use: str, by: str, at: str) -> None:
        """Raises PadRefused as `judge`."""
        self.judge(fingerprint, in_use)
        self._save(Staged(fingerprint, by, at), tuple(dict.fromkeys((*self.used, in_use))))

    def judge(self, fingerprint: str, in_use: str) -> None:
        """Raises PadRefused for a pad that is, or was, in use, or while another one waits."""
        if self.staged is not None:
            raise PadRefused(f"a pad waits already, staged by {self.staged.by} at {self.staged.at}")
        if fingerprint in (in_use, *self.used):
            raise PadRefused("this pad is or was in use; a pad is never used again: bring another one")

    def switch(self) -> None:
        """From now on there is no way back."""
        assert self.staged is not None
        self._save(replace(self.staged, switching=True), self.used)

    def done(self) -> None:
        assert self.staged is not None
        self._save(None, (*self.used, self.staged.fingerprint))

    def abandon(self) -> None:
        """Raises PadRefused when there is nothing to give up any more."""
        if self.staged is None:
            raise PadRefused("no pad waits")
        if self.staged.switching:
            raise PadRefused("the change has begun; it cannot be given up")
        self.forget()

    def forget(self) -> None:
        """What was staged is not there any more."""
        self._save(None, self.used)

    def _save(self, staged: Staged | None, used: tuple[str, ...]) -> None:
        body: Mapping[str, Any] = {"staged": asdict(staged) if staged else None, "used": list(used)}
        write_whole(self.path, json.dumps(body, indent=1), 0o600)
        self.staged, self.used = staged, used


class Turn(Enum):
    """What a module with a staged pad does now."""

    WAIT = "waits for the far module, which has to be re-keyed with the same pad"
    DIFFERS = "the far module was given another pad: abandon one and bring the other's"
    SETTLE = "waits for blocks in work"
    SWITCH = "changes over"


@dataclass
class Agreement:
    """When to change over. `offer` is this module's fingerprint; `heard` what the far one offers in this session.

    Once both have offered the same, each changes over by itself, with or without the session.
    """

    offer: bytes
    heard: bytes = b""
    agreed: bool = False
    _alone_since: float | None = field(default=None)

    def hear(self, fingerprint: bytes) -> None:
        self.heard = fingerprint
        self.agreed = self.agreed or fingerprint == self.offer

    def turn(self, now_s: float, session: bool, blocks_in_work: int) -> Turn:
        """`now_s` is monotonic; `session`: there is one with the far module."""
        if self.agreed:
            return Turn.SETTLE if session and blocks_in_work else Turn.SWITCH
        if not session:
            self.heard = b""
            self._alone_since = now_s if self._alone_since is None else self._alone_since
            return Turn.SWITCH if now_s - self._alone_since >= ALONE_S else Turn.WAIT
        self._alone_since = None
        return Turn.DIFFERS if self.heard else Turn.WAIT
