"""Calls and arrays between two processes of this machine: small ones inside a datagram, big ones in shared memory.

A parcel is a pickle whose arrays stay outside of it (protocol 5). Above `INLINE_BYTES` the whole goes into an anonymous
memory file, and its descriptor over a Unix socket: the far process maps the pages instead of copying them. Nothing has
a name that could be left behind; the kernel frees the pages when the last process lets go of them, however it ends.

Pickles are trusted: both ends are the same program, and the socket is a pair that only they hold.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any

INLINE_BYTES = 81_920
# Above this, writing takes the better part of a millisecond and does not belong into an event loop.
LARGE_BYTES = 262_144
_DATAGRAM = 2 * INLINE_BYTES
# The alignment that compiled kernels may count on.
_ALIGN = 64


class Closed(Exception):
    """The far end is gone."""


class Parcel:
    """One object, ready to be sent. Holds on to the arrays inside without copying them."""

    def __init__(self, thing: Any) -> None:
        self._raw: list[memoryview] = []
        stream = pickle.dumps(thing, protocol=5, buffer_callback=self._keep)
        lengths = [len(stream), *(len(r) for r in self._raw)]
        head = struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths)
        self._pieces: list[bytes | memoryview] = []
        self.size = 0
        contents: list[bytes | memoryview] = [head, stream, *self._raw]
        for piece in contents:
            self._pieces += [piece, bytes(-len(piece) % _ALIGN)]
            self.size += len(piece) + -len(piece) % _ALIGN

    def _keep(self, buffer: pickle.PickleBuffer) -> None:
        self._raw.append(buffer.raw())

    @property
    def large(self) -> bool:
        return self.size > LARGE_BYTES

    def written(self) -> tuple[bytes, int]:
        """(datagram, descriptor to send along or -1); whoever sends it closes the descriptor."""
        if self.size <= INLINE_BYTES:
            return b"".join(self._pieces), -1
        fd = os.memfd_create("parcel", os.MFD_CLOEXEC)
        try:
            _write_all(fd, self._pieces)
        except BaseException:
            os.close(fd)
            raise
        return b"\0", fd


def _write_all(fd: int, pieces: Sequence[bytes | memoryview]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while len(view):
            view = view[os.write(fd, view) :]


def put(to: socket.socket, datagram: bytes, fd: int) -> None:
    """Send what `Parcel.written` gave, and close the descriptor once it is sent. Raises Closed, and BlockingIOError on
    a socket that does not block and is full (then nothing was sent, and the descriptor is still open)."""
    try:
        socket.send_fds(to, [datagram], [] if fd < 0 else [fd])
    except BlockingIOError:
        raise
    except OSError as e:
        if fd >= 0:
            os.close(fd)
        raise Closed(str(e)) from None
    if fd >= 0:
        os.close(fd)


def take(source: socket.socket) -> Any:
    """The next parcel's object; its arrays may be written to. Raises Closed; BlockingIOError if none waits."""
    try:
        datagram, fds, _, _ = socket.recv_fds(source, _DATAGRAM, 1)
    except BlockingIOError:
        raise
    except OSError as e:
        raise Closed(str(e)) from None
    if not datagram:
        raise Closed("the far end closed")
    if not fds:
        return _unpacked(memoryview(bytearray(datagram)))
    try:
        # All of it is read: one call that maps it costs less than a fault every few pages.
        pages = mmap.mmap(fds[0], 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    finally:
        os.close(fds[0])
    return _unpacked(memoryview(pages))


def _unpacked(view: memoryview) -> Any:
    (n,) = struct.unpack_from("<I", view)
    lengths = struct.unpack_from(f"<{n}Q", view, 4)
    at = 4 + 8 * n
    at += -at % _ALIGN
    pieces = []
    for length in lengths:
        pieces.append(view[at : at + length])
        at += length + -length % _ALIGN
    return pickle.loads(pieces[0], buffers=pieces[1:])
