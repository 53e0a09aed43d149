"""Stream servers whose connections end with them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listening:
    """A TCP server on one port; `handle` runs once a connection, until it returns or the far end closes."""

    def __init__(self, handle: Handler, limit: int = 1 << 16) -> None:
        self._handle = handle
        self._limit = limit
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port: `port`, or another one when that is 0 or taken. Raises OSError."""
        try:
            self._server = await asyncio.start_server(self._connection, host, port, limit=self._limit)
        except OSError as e:
            if port == 0:
                raise
            log.warning("port %d cannot be had again (%s); taking another one", port, e.strerror)
            self._server = await asyncio.start_server(self._connection, host, 0, limit=self._limit)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            log.debug("a client hung up")
        except Exception:
            log.exception("connection ended by an error of ours")
        finally:
            writer.close()
