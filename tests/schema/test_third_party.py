"""Clients that are not ours drive the command face with nothing but the AsyncAPI document and `qmodctl sign`:
paho-mqtt, and mosquitto_pub with mosquitto_sub."""

from __future__ import annotations

import asyncio
import json
import queue
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from qmodd.broker import BrokerHandle, start_broker
from tests.schema.reader import Reader
from tests.schema.stand_in import MODULE, output, standing_in

pytestmark = pytest.mark.processes
WAIT_S = 20.0


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerHandle]:
    handle = asyncio.run(start_broker(tmp_path_factory.mktemp("mosquitto"), embedded=False))
    yield handle
    handle.stop()


class Paho:
    """A client that a stranger wrote; blocking, in its own thread. `name` is that of its certificate; a careless one
    does not look at what it sends."""

    def __init__(self, port: int, name: str) -> None:
        self.name, self.careless, self.heard = name, False, queue.Queue[paho.MQTTMessage]()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, client_id=uuid4().hex)
        self.ready = queue.Queue[int]()
        self.client.on_message = lambda _c, _u, message: self.heard.put(message)
        self.client.on_subscribe = lambda _c, _u, mid, _codes, _p: self.ready.put(mid)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def subscribe(self, topic: str) -> None:
        self.client.subscribe(topic, qos=1)
        self.ready.get(timeout=WAIT_S)

    def document(self) -> Reader:
        """From the module itself: the index, then its pages."""
        self.subscribe(f"qmodd/v1/{MODULE}/schema/#")
        index, pages = None, dict[int, bytes]()
        while index is None or len(pages) < index["pages"]:
            message = self.heard.get(timeout=WAIT_S)
            last = message.topic.rpartition("/")[2]
            if last == "schema":
                index = json.loads(message.payload)
            else:
                pages[int(last)] = message.payload
        self.client.unsubscribe(f"qmodd/v1/{MODULE}/schema/#")
        return Reader(json.loads(b"".join(pages[n] for n in sorted(pages))))

    def ask(self, reader: Reader, operation: str, signed: bytes, **parameters: str) -> list[dict[str, Any]]:
        """Publish a signed request as the document says; its answers, each checked against the document."""
        how = reader.operation(operation, module=MODULE, **parameters)
        if not self.careless:
            reader.validate(how.payload, json.loads(signed))
        reply_topic = reader.reply_topic(module=MODULE, client=self.name)
        self.subscribe(reply_topic)
        mark = uuid4().bytes
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic, properties.CorrelationData = reply_topic, mark
        properties.MessageExpiryInterval = how.expiry_s
        self.client.publish(how.topic, signed, how.qos, how.retain, properties).wait_for_publish(WAIT_S)
        answers: list[dict[str, Any]] = []
        while not answers or "ok" not in answers[-1]:
            message = self.heard.get(timeout=WAIT_S)
            assert message.topic == reply_topic
            assert message.properties is not None
            assert message.properties.CorrelationData == mark
            answers.append(json.loads(message.payload))
            reader.validate({"anyOf": reader.replies(operation)}, answers[-1])
        return answers


async def test_paho_drives_a_module_by_the_document(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    async with standing_in(tmp_path, mosquitto.url) as site:
        client = await asyncio.to_thread(Paho, mosquitto.plan.port, "operator")
        try:
            reader = await asyncio.to_thread(client.document)

            async def ask(operation: str, *words: str, **parameters: str) -> list[dict[str, Any]]:
                signed = await site.sign("operator", *words)
                return await asyncio.to_thread(lambda: client.ask(reader, operation, signed, **parameters))

            [started] = await ask("do-command-start", "start")
            assert started["result"]["activity"]["value"] == site.module.activity == "keying"
            [stopped] = await ask("do-command-stop", "stop")
            assert stopped["result"]["activity"]["value"] == site.module.activity == "ready"

            *progress, tested = await ask("do-command-selftest", "selftest", "level=light-off", "wait=true")
            assert [p["progress"] for p in progress] == [0.25, 0.5, 1.0]
            assert tested["result"]["passed"]
            assert {p["id"] for p in progress} == {tested["id"]}

            [done] = await ask("do-set-path", "set/keys.store_limit", "value=20000", path="keys.store_limit")
            assert done["result"]["value"] == site.module.store_limit == 20000
            [refused] = await ask("do-set-path", "set/keys.store_limit", "value=5", path="keys.store_limit")
            assert refused["error"]["code"] == "out_of_range"
            assert refused["error"]["limit"] == {
                "output": "keys.store_limit",
                "value": 5.0,
                "low": 60.0,
                "high": 100000.0,
                "unit": "keys",
            }
            assert site.module.store_limit == 20000
            with pytest.raises(jsonschema.ValidationError, match="colour"):  # said by the document, before it is sent
                await ask("do-command-selftest", "selftest", "colour=red")
            client.careless = True
            [unknown] = await ask("do-command-selftest", "selftest", "colour=red")
            assert unknown["error"]["code"] == "bad_arguments"
        finally:
            await asyncio.to_thread(client.close)


async def test_a_viewer_and_a_second_use_are_told_why_they_are_refused(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    async with standing_in(tmp_path, mosquitto.url) as site:
        viewer = await asyncio.to_thread(Paho, mosquitto.plan.port, "viewer")
        operator = await asyncio.to_thread(Paho, mosquitto.plan.port, "operator")
        try:
            reader = await asyncio.to_thread(viewer.document)
            signed = await site.sign("viewer", "start")
            [refused] = await asyncio.to_thread(viewer.ask, reader, "do-command-start", signed)
            assert refused["error"]["code"] == "not_allowed"
            assert site.module.activity == "ready"
            signed = await site.sign("operator", "start")
            codes = []
            for _ in range(2):
                [reply] = await asyncio.to_thread(operator.ask, reader, "do-command-start", signed)
                codes.append((reply["error"] or {}).get("code"))
            assert codes == [None, "duplicate"]
        finally:
            await asyncio.to_thread(viewer.close)
            await asyncio.to_thread(operator.close)


class Sub:
    """`mosquitto_sub` that has subscribed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, port: int, topic: str, *options: str) -> Sub:
        argv = ["stdbuf", "-oL", "mosquitto_sub", "-p", str(port), "-q", "1", "-t", topic, "-d", "-W", "30", *options]
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        sub = cls(process)
        await sub.line("received SUBACK")
        return sub

    async def line(self, wanted: str) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            while wanted not in (text := (await self.process.stdout.readline()).decode()):
                assert text, "mosquitto_sub has ended"
        return text

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.communicate()


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto-clients is not installed")
async def test_mosquitto_pub_and_sub_do_the_same(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    port = str(mosquitto.plan.port)
    async with standing_in(tmp_path, mosquitto.url) as site:
        root = f"qmodd/v1/{MODULE}/"
        pages = await output("mosquitto_sub", "-p", port, "-V", "5", "-t", f"{root}schema/+", "-C", "2", "-N")
        reader = Reader(json.loads(pages))
        reply_topic = reader.reply_topic(module=MODULE, client="operator")

        async def ask(operation: str, version: str, *words: str, **parameters: str) -> tuple[str, dict[str, Any]]:
            how = reader.operation(operation, module=MODULE, **parameters)
            signed = await site.sign("operator", *words)
            sub = await Sub.start(int(port), reply_topic, "-V", version, "-F", "=%D=%p")
            try:
                argv = ["mosquitto_pub", "-p", port, "-V", version, "-q", str(how.qos), "-t", how.topic, "-s"]
                if version == "5":
                    argv += ["-D", "publish", "response-topic", reply_topic]
                    argv += ["-D", "publish", "correlation-data", "mark-7"]
                    argv += ["-D", "publish", "message-expiry-interval", str(how.expiry_s)]
                await output(*argv, stdin=signed)
                _, mark, text = (await sub.line('"ok":')).split("=", 2)
            finally:
                await sub.close()
            reader.validate(reader.replies(operation)[0], json.loads(text))
            return mark, json.loads(text)

        mark, reply = await ask("do-command-start", "5", "start")
        assert (mark, reply["ok"], site.module.activity) == ("mark-7", True, "keying")
        mark, reply = await ask("do-set-path", "5", "set/keys.store_limit", "value=6000", path="keys.store_limit")
        assert (mark, reply["ok"], site.module.store_limit) == ("mark-7", True, 6000)
        mark, reply = await ask("do-command-selftest", "5", "selftest", "level=power-on", "wait=true")
        assert (mark, reply["result"]["level"]) == ("mark-7", "power-on")
        # A client of MQTT 3.1.1 has no properties: the id in the signed body tells it which answer is its own.
        mark, reply = await ask("do-command-stop", "311", "stop")
        assert (mark, reply["ok"], site.module.activity) == ("", True, "ready")
