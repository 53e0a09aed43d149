"""Locks of a HiSLIP device (IVI-6.1, 3.2): one exclusive, or any number that share a key."""

from __future__ import annotations

FAILURE, EXCLUSIVE, SHARED, ERROR = range(4)


class Locks:
    """Who holds the device, by session id. Response codes as on the wire."""

    def __init__(self) -> None:
        self._exclusive: int | None = None
        self._shared: set[int] = set()
        self._key = b""

    @property
    def is_exclusive(self) -> bool:
        return self._exclusive is not None

    @property
    def holders(self) -> int:
        """Sessions that hold a lock of either kind."""
        return len(self._shared | ({self._exclusive} if self._exclusive is not None else set()))

    def shuts_out(self, session: int) -> bool:
        """Must this session's messages wait?"""
        if self._exclusive is not None:
            return self._exclusive != session
        return bool(self._shared) and session not in self._shared

    def request(self, session: int, key: bytes) -> int:
        """EXCLUSIVE (no key) or SHARED when granted, FAILURE while others hold it, ERROR when held already."""
        if key:
            return self._request_shared(session, key)
        if self._exclusive == session:
            return ERROR
        if self._exclusive is not None or (self._shared and session not in self._shared):
            return FAILURE
        self._exclusive = session
        return EXCLUSIVE

    def release(self, session: int) -> int:
        """Which kind was released, the exclusive one first; ERROR when none was held."""
        if self._exclusive == session:
            self._exclusive = None
            return EXCLUSIVE
        if session in self._shared:
            self._shared.remove(session)
            return SHARED
        return ERROR

    def forget(self, session: int) -> None:
        """The session is over."""
        while self.release(session) != ERROR:
            pass

    def _request_shared(self, session: int, key: bytes) -> int:
        if session in self._shared:
            return ERROR
        if self._exclusive not in (None, session) or (self._shared and key != self._key):
            return FAILURE
        self._shared.add(session)
        self._key = key
        return SHARED
