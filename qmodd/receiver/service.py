"""A receiver over MQTT: it reconnects by itself, and the disk never holds up the connection."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from qmodd.messages import ROOT
from qmodd.randomness import SystemRandomness
from qmodd.receiver.receiver import NotBelieved, Receiver
from qmodd.receiver.settings import ReceiveSettings, open_sink
from qmodd.receiver.sink import FileSink
from qmodd.uplink.mqtt_link import Arrived, Backoff, Link, keep_link

SESSION_EXPIRY_S = 3600
SWEEP_EVERY_S = 60.0
SUFFIXES = ("", "/usable", "/revoke")
Say = Callable[[str], None]
Result = TypeVar("Result")


async def run(settings: ReceiveSettings, receiver: Receiver, say: Say) -> None:
    """Serve over MQTT until cancelled; reconnects by itself. `say` gets one line per message and lost connection.

    Raises OSError, StoreRefused if the store or the sink cannot be written any more.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="store") as disk:
        sink = open_sink(settings.sink, receiver) if settings.sink else None
        service = _Service(settings, receiver, sink, say, disk)
        async with asyncio.TaskGroup() as group:
            sweeping = group.create_task(service.sweep(), name="sweep")
            await service.serve()
            sweeping.cancel()


@dataclass
class _Service:
    settings: ReceiveSettings
    receiver: Receiver
    sink: FileSink | None
    say: Say
    disk: ThreadPoolExecutor

    @property
    def name(self) -> str:
        return self.receiver.identity.name

    async def on_disk(self, work: Callable[[], Result]) -> Result:
        """In the one thread that touches store and sink."""
        return await asyncio.get_running_loop().run_in_executor(self.disk, work)

    async def serve(self) -> None:
        backoff = Backoff(SystemRandomness())

        async def connected(link: Link) -> None:
            topics = [f"{ROOT}/{s.serial}/keys/{self.name}{end}" for s in self.settings.sender for end in SUFFIXES]
            await link.subscribe(*topics)
            backoff.reset()
            self.say(f"{self.name}: listening at {self.settings.broker.url}")
            while True:
                await self.one(link, await link.next_message())

        await keep_link(
            self.settings.broker,
            f"qmodd-receive-{self.name}",
            connected,
            backoff,
            lambda why: self.say(f"{self.name}: {why}"),
            session_expiry_s=SESSION_EXPIRY_S,
        )

    async def one(self, link: Link, message: Arrived) -> None:
        topic, _, suffix = message.topic.partition(f"/keys/{self.name}")
        suffix = suffix.removeprefix("/")
        before = Counter(self.receiver.counts)
        try:
            ack = await self.on_disk(lambda: self.receiver.handle(suffix, message.payload))
        except NotBelieved as e:
            self.receiver.counts["not_believed"] += 1
            self.say(f"{self.name}: {message.topic}: not believed: {e}")
            return
        except sqlite3.OperationalError as e:  # a full or busy disk: not acknowledged, so it comes again
            self.receiver.counts["not_stored"] += 1
            self.say(f"{self.name}: {message.topic}: not stored: {e}")
            return
        await link.publish(f"{topic}/keys/{self.name}/ack", ack)
        new = ", ".join(f"{n} {what}" for what, n in sorted((self.receiver.counts - before).items()))
        total = self.receiver.counts["imported"]
        self.say(f"{self.name}: {suffix or 'batch'}: {new or 'nothing new'}; {total} imported since start")
        if suffix == "usable":
            await self.flush()

    async def flush(self) -> None:
        """Into the sink, if there is one, whatever is usable."""
        if self.sink is not None and (n := await self.on_disk(self.sink.flush)):
            self.receiver.counts["handed_out"] += n
            self.say(f"{self.name}: {n} keys into containers in {self.sink.directory}")

    async def sweep(self) -> None:
        """Lifetimes, at the start and then every minute; what became usable by the time goes out, too."""
        while True:
            done = await self.on_disk(self.receiver.sweep)
            if any(done.values()):
                self.say(f"{self.name}: " + ", ".join(f"{n} {what}" for what, n in done.items() if n))
            if why := await self.on_disk(self.receiver.table.audit):
                self.say(f"{self.name}: keys are not conserved: {why}")
            await self.flush()
            await asyncio.sleep(SWEEP_EVERY_S)
