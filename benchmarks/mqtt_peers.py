"""Processes beside the broker that benchmarks need: an echo without any of our code, and a fleet of publishers.

    python -m benchmarks.mqtt_peers echo PORT
    python -m benchmarks.mqtt_peers fleet PORT MODULES SECONDS

Both say `ready` on stdout; the fleet at its end how many messages it sent.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

VALUES = 20


def bare(port: int, name: str) -> aiomqtt.Client:
    """A plain aiomqtt client, MQTT 5, without Nagle's delay."""
    return aiomqtt.Client(
        "127.0.0.1",
        port,
        identifier=name,
        protocol=aiomqtt.ProtocolVersion.V5,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )


async def echo(port: int) -> None:
    """Sends back on the response topic what comes on `echo/ask`, QoS 1 both ways."""
    async with bare(port, "bench-echo") as client:
        await client.subscribe("echo/ask", qos=1)
        print("ready", flush=True)
        async for message in client.messages:
            properties = Properties(PacketTypes.PUBLISH)
            properties.CorrelationData = message.properties.CorrelationData
            await client.publish(message.properties.ResponseTopic, message.payload, qos=1, properties=properties)


async def fleet(port: int, modules: int, seconds: float) -> None:
    """So many connections, each publishing a group of 20 values once a second at a moment of its own."""
    sent = 0
    begin = asyncio.Event()
    connected = 0

    async def one(number: int) -> None:
        nonlocal sent, connected
        name = f"QM-F-{number:04d}"
        values = {f"value_{i}_unit": 1.0 / (number + i + 1) for i in range(VALUES)}
        async with bare(port, name) as client:
            connected += 1
            await begin.wait()
            due = time.monotonic() + random.random()
            for seq in range(int(seconds)):
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due += 1.0
                body = {"t": time.time(), "seq": seq, **values}
                await client.publish(f"qmodd/v1/{name}/telemetry/bench", json.dumps(body), qos=0)
                sent += 1
            await client.publish(f"qmodd/v1/{name}/bye", b"", qos=1)  # everything before it has gone out

    async with asyncio.TaskGroup() as group:
        for number in range(modules):
            group.create_task(one(number))
        while connected < modules:
            await asyncio.sleep(0.01)
        print("ready", flush=True)
        begin.set()
    print(sent, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        asyncio.run(echo(int(sys.argv[2])))
    else:
        asyncio.run(fleet(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
