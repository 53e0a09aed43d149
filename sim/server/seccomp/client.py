"""A supervisor's connection to the world: one request at a time, with a time-out, opened again when it is lost."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path

from sim.server.busproto import HANG, Frames, Operation, ProtocolError, Reply, Request, decode_reply, encode_request

LOOK_S = 0.25
"""How often a call that hangs on purpose looks whether its caller still lives."""


class WorldGone(OSError):
    """No world at the socket, or it broke the connection: EIO for whoever asked."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EIO, why)


class WorldClient:
    """One device's connection. Used by one thread; `interrupt` may be called from another."""

    def __init__(self, path: Path, module: str, device: str, timeout_s: float = 2.0) -> None:
        self._path = path
        self._module = module
        self._device = device
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._frames = Frames()
        self._closed = False

    def call(self, operation: Operation, wanted: Callable[[], bool] = lambda: True) -> Reply:
        """Ask the world. `wanted` tells whether the caller still lives, for a bus that hangs on purpose.

        Raises OSError: the errno that the world answers, or WorldGone (EIO) without an answer in time.
        """
        message = encode_request(Request(self._module, self._device, operation))
        fresh = self._socket is None
        try:
            reply = self._exchange(message, wanted)
        except (ConnectionError, EOFError):
            self._drop()
            if fresh:
                raise WorldGone("the world broke the connection") from None
            # The world was restarted since the last call: what the old one may have done died with it.
            reply = self._second_try(message, wanted)
        if reply.status < 0:
            raise OSError(-reply.status, os.strerror(-reply.status))
        return reply

    def interrupt(self) -> None:
        """End a call that is waiting, and refuse any further one."""
        self._closed = True
        sock = self._socket
        if sock is not None:
            _shut(sock)

    def close(self) -> None:
        """Once no call is under way any more."""
        self._closed = True
        self._drop()

    def _second_try(self, message: bytes, wanted: Callable[[], bool]) -> Reply:
        try:
            return self._exchange(message, wanted)
        except (ConnectionError, EOFError):
            self._drop()
            raise WorldGone("the world broke the connection") from None

    def _exchange(self, message: bytes, wanted: Callable[[], bool]) -> Reply:
        sock = self._connected()
        try:
            sock.settimeout(self._timeout_s)
            sock.sendall(message)
            reply = self._receive(sock)
            while reply.status == HANG:
                sock.settimeout(None)
                while not select.select([sock], [], [], LOOK_S)[0]:
                    if not wanted():
                        raise TimeoutError
                reply = self._receive(sock)
        except (TimeoutError, ProtocolError) as e:
            self._drop()  # whatever arrives late must not answer the next request
            raise WorldGone("no answer from the world in time") from e
        return reply

    def _connected(self) -> socket.socket:
        if self._closed:
            raise WorldGone("shut down")
        if self._socket is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(self._timeout_s)
                sock.connect(str(self._path))
            except OSError as e:
                sock.close()
                raise WorldGone(f"no world at {self._path}") from e
            self._frames = Frames()
            self._socket = sock
        return self._socket

    def _receive(self, sock: socket.socket) -> Reply:
        while True:
            data = sock.recv(65536)
            if not data:
                raise EOFError
            bodies = self._frames.feed(data)
            if bodies:
                return decode_reply(bodies[0])

    def _drop(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as e:
        if e.errno not in (errno.ENOTCONN, errno.EBADF):  # the other thread was quicker
            raise
