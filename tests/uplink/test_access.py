"""Each rule of the shipped Mosquitto configuration, tried by who may and by who may not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from qmodd.broker import BrokerHandle
from qmodd.broker_site import LAB, VIEWERS, access_rules
from qmodd.demo.compose import shipped
from qmodd.requests import ROLES
from qmodd.uplink.mqtt_link import BrokerSettings, LinkDown, open_link
from qmodd.uplink.topics import PUBLIC
from tests.docs.pages import DOCS, code, rows, sections
from tests.uplink.site import SecureSite

A, B = "QM-A-0001", "QM-B-0001"
NOT_AUTHORISED = 0x87


@dataclass(frozen=True)
class Running:
    site: SecureSite
    broker: BrokerHandle


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    site = SecureSite.make(tmp_path_factory.mktemp("access"), LAB)
    broker = asyncio.run(site.start())
    yield Running(site, broker)
    broker.stop()


def concrete(topic: str) -> str:
    return topic.replace("+", "x").replace("#", "x/y")


# Who, topic below qmodd/v1/, may publish there.
WRITES = [
    *((A, f"{A}/{concrete(t)}", True) for t in PUBLIC),
    *((A, f"{A}/{t}", True) for t in ("reply/ann", "keys/kms-a", "keys/kms-a/usable", "keys/kms-a/revoke")),
    *((A, f"{B}/{concrete(t)}", False) for t in (*PUBLIC, "reply/ann", "keys/kms-b", "keys/kms-b/revoke")),
    *((A, f"{A}/{t}", False) for t in ("command/start", "set/keys.lifetime_s", "keys/kms-a/ack", "unheard-of")),
    (A, f"{B}/command/start", False),
    (A, "../elsewhere", False),
    ("kms-a", f"{A}/keys/kms-a/ack", True),
    *(("kms-a", t, False) for t in (f"{A}/keys/kms-b/ack", f"{B}/keys/kms-a/ack", f"{A}/keys/kms-a", f"{A}/state")),
    ("kms-a", f"{A}/command/revoke", False),
    ("kms-a", "kms-a/state", False),
    *(("viewer", f"{A}/{t}", True) for t in VIEWERS),
    *(("viewer", f"{A}/command/{c}", False) for c, roles in ROLES.items() if "viewer" not in roles),
    *(("viewer", f"{A}/{t}", False) for t in ("set/keys.lifetime_s", "state", "alive", "event", "reply/viewer")),
    ("viewer", "viewer/alive", False),
    *((who, f"{m}/command/start", True) for who in ("operator", "maintainer", "security") for m in (A, B)),
    *((who, f"{A}/set/control.phase_limit_deg", True) for who in ("operator", "maintainer", "security")),
    *((who, f"{A}/{t}", False) for who in ("operator", "security") for t in ("state", "alive", "keys/kms-a/ack")),
    ("operator", "operator/alive", False),
]


@pytest.mark.parametrize(("who", "topic", "allowed"), WRITES, ids=[f"{w} {t}" for w, t, _ in WRITES])
async def test_who_may_publish_where(here: Running, who: str, topic: str, allowed: bool) -> None:
    async with here.site.link(who, here.broker.url) as link, asyncio.timeout(10):
        code = await link.publish(f"qmodd/v1/{topic}", b"x")
    assert (code < 0x80) == allowed, f"reason code {code:#x}"
    assert allowed or code == NOT_AUTHORISED


# Reader, topic, its rightful writer, and what the reader certainly may read with who writes it; may the reader read?
READS = [
    *(("viewer", f"{A}/{concrete(t)}", A, f"{B}/state", B, True) for t in PUBLIC),
    *(("operator", f"{A}/{concrete(t)}", A, f"{B}/state", B, True) for t in PUBLIC),
    ("viewer", f"{A}/reply/viewer", A, f"{B}/state", B, True),
    ("viewer", f"{A}/reply/operator", A, f"{B}/state", B, False),
    ("viewer", f"{A}/command/start", "operator", f"{B}/state", B, False),
    ("viewer", f"{A}/set/keys.lifetime_s", "operator", f"{B}/state", B, False),
    *(("viewer", f"{A}/keys/{t}", A, f"{B}/state", B, False) for t in ("kms-a", "kms-a/usable", "kms-a/revoke")),
    ("security", f"{A}/keys/kms-a", A, f"{B}/state", B, False),
    ("viewer", f"{A}/keys/kms-a/ack", "kms-a", f"{B}/state", B, False),
    *(("kms-a", f"{A}/keys/{t}", A, f"{A}/alive", A, True) for t in ("kms-a", "kms-a/usable", "kms-a/revoke")),
    ("kms-a", f"{A}/keys/kms-b", A, f"{A}/alive", A, False),
    ("kms-a", f"{B}/keys/kms-a", B, f"{A}/alive", A, False),
    ("kms-a", f"{A}/state", A, f"{A}/alive", A, False),
    (A, f"{A}/set/keys.lifetime_s", "operator", f"{A}/command/stop", "operator", True),
    (A, f"{A}/keys/kms-a/ack", "kms-a", f"{A}/command/stop", "operator", True),
    (A, f"{B}/command/stop", "operator", f"{A}/command/stop", "operator", False),
    (A, f"{B}/keys/kms-b/ack", "kms-b", f"{A}/command/stop", "operator", False),
    (A, f"{B}/state", B, f"{A}/command/stop", "operator", False),
]


@pytest.mark.parametrize(
    ("who", "topic", "writer", "known", "teller", "allowed"), READS, ids=[f"{r[0]} {r[1]}" for r in READS]
)
async def test_who_may_read_what(
    here: Running, who: str, topic: str, writer: str, known: str, teller: str, allowed: bool
) -> None:
    """What is certainly allowed is sent last: when it is there, the other has come or never will."""
    url = here.broker.url
    async with here.site.link(who, url) as reader, asyncio.timeout(10):
        await reader.subscribe(f"qmodd/v1/{topic}", f"qmodd/v1/{known}")
        for name, where in ((writer, topic), (teller, known)):
            async with open_link(here.site.settings(name, url), f"writer-{name}") as link:
                assert await link.publish(f"qmodd/v1/{where}", b"x") < 0x80
        got = [await reader.next_message()]
        while got[-1].topic != f"qmodd/v1/{known}":
            got.append(await reader.next_message())
    assert (f"qmodd/v1/{topic}" in {m.topic for m in got}) == allowed


async def test_what_is_denied_does_not_cost_the_connection(here: Running) -> None:
    """A module that says something for which the rules are too old must still get everything else through."""
    async with here.site.link(A, here.broker.url) as module, asyncio.timeout(10):
        for qos in (1, 0, 1):
            await module.publish(f"qmodd/v1/{A}/unheard-of", b"x" * 10_000, qos=qos)
        assert await module.publish(f"qmodd/v1/{A}/state", b"x") < 0x80


async def test_a_subscription_to_everything_brings_no_key(here: Running) -> None:
    async with here.site.link("operator", here.broker.url) as spy, asyncio.timeout(10):
        await spy.subscribe("#")
        async with here.site.link(A, here.broker.url) as module:
            await module.publish(f"qmodd/v1/{A}/keys/kms-a", b"sealed")
            await module.publish(f"qmodd/v1/{A}/reply/somebody", b"else's")
            await module.publish(f"qmodd/v1/{A}/kpi", b"{}")
        got = await spy.next_message()
    assert got.topic == f"qmodd/v1/{A}/kpi"


async def test_without_a_certificate_there_is_no_connection(here: Running, tmp_path: object) -> None:
    own = here.site.settings("viewer", here.broker.url)
    bare = own.model_copy(update={"certificate": None, "key": None})
    with pytest.raises(LinkDown, match="no connection"):
        async with open_link(bare, "bare"):
            pass
    with pytest.raises(LinkDown, match="no connection"):
        async with open_link(BrokerSettings(url=here.broker.url.replace("mqtts", "mqtt")), "plain"):
            pass


async def test_a_certificate_of_another_authority_is_refused(
    here: Running, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = SecureSite.make(tmp_path_factory.mktemp("stranger"), LAB)
    theirs = stranger.settings("operator", here.broker.url)
    mixed = theirs.model_copy(update={"ca": here.site.pki / "ca" / "ca.pem"})
    for settings, why in ((mixed, "no connection"), (theirs, "certificate verify failed")):
        with pytest.raises(LinkDown, match=why):
            async with open_link(settings, "stranger"):
                pass


async def test_a_user_name_of_one_s_own_choice_counts_for_nothing(here: Running) -> None:
    settings = here.site.settings("viewer", here.broker.url)
    disguised = settings.model_copy(update={"username": "operator", "password": "guess"})
    async with open_link(disguised, "disguised") as link, asyncio.timeout(10):
        assert await link.publish(f"qmodd/v1/{A}/command/start", b"x") == NOT_AUTHORISED


def test_the_shipped_rules_are_those_of_the_shipped_list() -> None:
    assert shipped("mosquitto/acl") == access_rules(LAB)


def test_every_documented_topic_has_its_rules() -> None:
    """A topic that a module publishes is public, or for one receiver; else nobody could ever read it."""
    documented = [code(row[0]) for row in rows(sections(DOCS / "reference" / "topics.md")["Topics"])]
    shapes = {t.split("<")[0].rstrip("/") for t in documented} - {"command", "set", "keys", "reply"}
    public = {t.split("/")[0] for t in PUBLIC}
    assert shapes <= public, f"not in PUBLIC of qmodd/uplink/topics.py: {sorted(shapes - public)}"


def test_the_bridge_carries_what_the_rules_allow() -> None:
    carried = {line.split()[1].removeprefix("qmodd/v1/+/") for line in _bridge() if line.split()[2] == "out"}
    assert carried == {*PUBLIC, "reply/+"}
    asked = {line.split()[1].removeprefix("qmodd/v1/+/") for line in _bridge() if line.split()[2] == "in"}
    assert asked == {"command/+", "set/#"}


def _bridge() -> list[str]:
    return [line for line in shipped("mosquitto/bridge.conf").splitlines() if line.startswith("topic ")]
