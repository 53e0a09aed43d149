"""The table of topics: nothing that core publishes or uplink listens to is missing in it."""

from __future__ import annotations

import re

from qmodd.schema.channels import BY_TOPIC, CHANNELS, GROUPS, KEY_BATCH, PARAMETERS, TELEMETRY
from qmodd.schema.models import message_models
from qmodd.uplink.topics import Topics
from tests.docs.pages import DOCS, ROOT, code, rows, sections


def test_every_topic_that_core_publishes() -> None:
    text = "\n".join(p.read_text() for p in sorted((ROOT / "qmodd").rglob("*.py")))
    put = re.findall(r'outbox\.put\(\s*f?"([^"]+)"', text)
    known = [re.sub(r"<[^>]*>", "x", topic) for topic in BY_TOPIC]
    assert {"state", "event"} <= set(put)
    for topic in put:
        shape = re.sub(r"\{[^}]*\}", "[^/]+", topic)
        assert any(re.fullmatch(shape, one) for one in known), topic


def test_every_topic_that_uplink_listens_to() -> None:
    root = "qmodd/v1/M/"
    for subscription in Topics("M").subscriptions:
        pattern = re.escape(subscription.removeprefix(root)).replace(r"\+", "<[a-z]+>").replace(r"\#", "<[a-z]+>")
        assert any(re.fullmatch(pattern.replace("\\", ""), topic) for topic in BY_TOPIC), subscription


def test_names() -> None:
    assert len({c.name for c in CHANNELS}) == len(CHANNELS) == len(BY_TOPIC)
    for channel in CHANNELS:
        assert set(channel.parameters) <= set(PARAMETERS)
        assert set(channel.messages) <= {*message_models(), KEY_BATCH, TELEMETRY}
        assert channel.writer == "module" or channel.retained in ("never", "no"), "nobody else retains anything"


def test_telemetry_groups_are_those_of_the_page() -> None:
    page = sections(DOCS / "reference" / "topics.md")["Telemetry"]
    assert {code(row[0]) for row in rows(page)} == set(GROUPS)
