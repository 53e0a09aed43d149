"""The control process's end of a worker: starts it, sends calls, hands results to who waits. Never blocks the loop."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
from collections import deque
from itertools import count
from typing import Any

from qmodd.keys import parcels, worker


class WorkerDied(Exception):
    """The worker process ended in the middle of a call; a new one is started for the next call. Costs the blocks whose
    bits it held."""


class WorkerLink:
    """One worker process. `dead` once it is gone; every call that waits then, or is made later, raises WorkerDied."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            context = multiprocessing.get_context("spawn")
            self._process = context.Process(target=worker.main, args=(theirs,), name="distil", daemon=True)
            self._process.start()
        ours.setblocking(False)
        self._socket = ours
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._waiting: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        # One parcel after the other, so that calls arrive in the order in which they were made.
        self._sending = asyncio.Lock()
        self._posts: deque[worker.Call] = deque()
        self.dead = False
        self._loop.add_reader(ours.fileno(), self._read)

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Raises what the bench raises, and WorkerDied."""
        number, future = next(self._numbers), self._loop.create_future()
        self._waiting[number] = (method, future)
        try:
            async with self._sending:
                await self._send(method, (number, method, arguments))
            return await future
        finally:
            del self._waiting[number]
            if future.done() and not future.cancelled():
                future.exception()  # seen, also where sending failed first

    def post(self, method: str, arguments: tuple[Any, ...]) -> None:
        """A small call that nobody waits for; at the latest it goes before the next call."""
        self._posts.append((-1, method, arguments))
        if not self._sending.locked():
            self._put_posts()

    def _put_posts(self) -> None:
        while self._posts and not self.dead:
            try:
                parcels.put(self._socket, *parcels.Parcel(self._posts[0]).written())
            except BlockingIOError:
                return
            except parcels.Closed:
                self._die()
            else:
                self._posts.popleft()

    async def _send(self, method: str, call: worker.Call) -> None:
        parcel = parcels.Parcel(call)
        datagram, fd = await asyncio.to_thread(parcel.written) if parcel.large else parcel.written()
        while True:
            self._put_posts()
            if self.dead:
                if fd >= 0:
                    os.close(fd)
                raise WorkerDied(f"the distillation worker died in {method!r}")
            try:
                return parcels.put(self._socket, datagram, fd)
            except BlockingIOError:
                await self._writable()
            except parcels.Closed:
                self._die()
                raise WorkerDied(f"the distillation worker died in {method!r}") from None

    async def _writable(self) -> None:
        free = asyncio.Event()
        self._loop.add_writer(self._socket.fileno(), free.set)
        try:
            await free.wait()
        finally:
            if not self.dead:
                self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        """One parcel a turn of the loop."""
        try:
            number, ok, result = parcels.take(self._socket)
        except BlockingIOError:
            return
        except parcels.Closed:
            self._die()
            return
        _, future = self._waiting.get(number, ("", None))
        if future is None or future.done():
            return  # whoever asked was cancelled
        if ok:
            future.set_result(result)
        else:
            future.set_exception(result)

    def _die(self) -> None:
        if self.dead:
            return
        self.dead = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for method, future in self._waiting.values():
            if not future.done():
                future.set_exception(WorkerDied(f"the distillation worker died in {method!r}"))

    async def close(self) -> None:
        """End the process, whatever it is doing: nobody wants its results any more."""
        self._die()
        if self._process.is_alive():
            self._process.kill()
        await asyncio.to_thread(self._process.join)
