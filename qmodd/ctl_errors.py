"""How commands of `qmodctl` end early."""

from __future__ import annotations


class CtlError(Exception):
    """What went wrong, and the exit status that says it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
