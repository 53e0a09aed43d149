"""A hostile client's flood of fuzzed requests, as a process: prints how many the broker has taken.

`python -m benchmarks.hostile_flood URL PKI SEEDS COUNT`; SEEDS is a JSON file, a list of [topic, request in base64].
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path

from benchmarks.hostile_requests import Attempt, fuzzed
from qmodd.uplink.mqtt_link import BrokerSettings, Link, open_link

AT_ONCE = 64


async def main(url: str, pki: Path, known: list[tuple[str, bytes]], count: int) -> int:
    """With a viewer's certificate."""
    own = pki / "clients" / "viewer"
    settings = BrokerSettings(url=url, ca=pki / "ca" / "ca.pem", certificate=own / "tls.pem", key=own / "tls.key")
    room = asyncio.Semaphore(AT_ONCE)
    sent = 0

    async def send(link: Link, attempt: Attempt) -> None:
        nonlocal sent
        try:
            await link.publish(attempt.topic, attempt.payload)
            sent += 1
        finally:
            room.release()

    async with open_link(settings, "hostile") as link, asyncio.TaskGroup() as group:
        for attempt in fuzzed(known, count, seed=1):
            await room.acquire()
            group.create_task(send(link, attempt))
    return sent


if __name__ == "__main__":
    address, files, path, many = sys.argv[1:]
    known = [(topic, base64.b64decode(text)) for topic, text in json.loads(Path(path).read_text())]
    print(asyncio.run(main(address, Path(files), known, int(many))))
