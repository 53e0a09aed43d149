"""SCPI over a raw TCP socket (TCPIP::host::port::SOCKET): messages end with a newline outside of binary blocks."""

from __future__ import annotations

import asyncio

from sim.server.listening import Listening
from sim.server.scpi import MessageSplitter, ScpiTwin, terminated


class RawScpiServer:
    """Serves one instrument; messages of all connections are executed one after another as they arrive."""

    def __init__(self, twin: ScpiTwin, *, speed: float = 1.0) -> None:
        """`speed`: world seconds a real second."""
        self._twin = twin
        self._speed = speed
        self._listening = Listening(self._serve)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Returns the port. Raises OSError."""
        return await self._listening.start(host, port)

    async def close(self) -> None:
        await self._listening.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        splitter = MessageSplitter()
        while data := await reader.read(1 << 20):
            for message in splitter.feed(data):
                if not self._twin.present:
                    writer.transport.abort()
                    return
                response = self._twin.execute(message)
                if self._twin.late_s:
                    await asyncio.sleep(self._twin.late_s / self._speed)
                if response is not None:
                    writer.write(terminated(response))
                    await writer.drain()
