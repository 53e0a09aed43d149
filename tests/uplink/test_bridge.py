"""The shipped bridge between a site's broker and a central one, over TLS and MQTT 5, with the far end away, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from qmodd.broker import BrokerHandle
from qmodd.broker_site import Site
from qmodd.demo.compose import shipped
from qmodd.uplink.mqtt_link import Link
from tests.uplink.site import SecureSite, changed

A, STRANGER = "QM-A-0001", "QM-X-0001"
ROOT = f"qmodd/v1/{A}/"
SITE = Site(modules=[A, STRANGER], clients={"operator": "operator"}, bridges={"site-1": [A]})
EVENTS = 3000


@dataclass
class Two:
    site: SecureSite
    central_site: SecureSite
    central: BrokerHandle
    local: BrokerHandle


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    """One authority for both, as when a site has one; the bridge's files are the only thing that they share."""
    central = SecureSite.make(tmp_path, SITE)
    site = SecureSite(central.pki, tmp_path / "local")
    far = await central.start()
    own = central.directory("site-1")
    bridge = changed(
        shipped("mosquitto/bridge.conf"),
        {
            "address": f"127.0.0.1:{far.plan.port}",
            "bridge_cafile": str(central.pki / "ca" / "ca.pem"),
            "bridge_certfile": str(own / "tls.pem"),
            "bridge_keyfile": str(own / "tls.key"),
            "restart_timeout": "1 1",
        },
    )
    here = await site.start(bridge=bridge)
    pair = Two(site, central, far, here)
    try:
        yield pair
    finally:
        pair.local.stop()
        pair.central.stop()


async def until_bridged(module: Link, reader: Link) -> None:
    """A retained value of the module has come through."""
    await module.publish(f"{ROOT}state", b"{}", retain=True)
    await reader.subscribe(f"{ROOT}state")
    assert (await reader.next_message()).payload == b"{}"


@pytest.mark.processes
async def test_requests_come_down_and_answers_go_up_with_their_properties(tmp_path: Path) -> None:
    async with (
        two(tmp_path) as t,
        asyncio.timeout(60),
        t.site.link(A, t.local.url) as module,
        t.central_site.link("operator", t.central.url) as operator,
    ):
        await module.subscribe(f"{ROOT}command/+")
        await until_bridged(module, operator)
        await operator.subscribe(f"{ROOT}reply/operator", f"{ROOT}keys/#")
        code = await operator.publish(
            f"{ROOT}command/stop", b"ask", correlation=b"c1", response_topic=f"{ROOT}reply/operator"
        )
        assert code == 0
        asked = await module.next_message()
        assert (asked.payload, asked.correlation, asked.response_topic, asked.retained) == (
            b"ask",
            b"c1",
            f"{ROOT}reply/operator",
            False,
        )
        await module.publish(f"{ROOT}keys/kms-a", b"sealed")  # stays at the site
        await module.publish(f"{ROOT}reply/operator", b"answer", correlation=asked.correlation)
        answer = await operator.next_message()
        assert (answer.topic, answer.payload, answer.correlation) == (f"{ROOT}reply/operator", b"answer", b"c1")


@pytest.mark.processes
async def test_a_site_speaks_only_for_its_own_modules(tmp_path: Path) -> None:
    async with (
        two(tmp_path) as t,
        asyncio.timeout(60),
        t.site.link(A, t.local.url) as module,
        t.site.link(STRANGER, t.local.url) as stranger,
        t.central_site.link("operator", t.central.url) as operator,
    ):
        await until_bridged(module, operator)
        await operator.subscribe("qmodd/v1/+/event")
        await stranger.publish(f"qmodd/v1/{STRANGER}/event", b"not of this site")
        await module.publish(f"{ROOT}event", b"of this site")
        assert (await operator.next_message()).payload == b"of this site"


@pytest.mark.processes
async def test_a_far_end_that_is_away_costs_no_event(tmp_path: Path) -> None:
    async with two(tmp_path) as t, asyncio.timeout(100), t.site.link(A, t.local.url) as module:
        async with t.central_site.link("operator", t.central.url, session_expiry_s=600) as operator:
            await until_bridged(module, operator)
            await operator.subscribe(f"{ROOT}event")
        t.central.stop()
        for n in range(EVENTS):
            await module.publish(f"{ROOT}event", str(n).encode())
        t.central = await t.central_site.start(t.central.plan.port)
        async with t.central_site.link("operator", t.central.url, session_expiry_s=600) as operator:
            got = []
            while len(got) < EVENTS:
                message = await operator.next_message()
                if message.topic.endswith("event"):
                    got.append(int(message.payload))
        assert got == list(range(EVENTS))
