"""The AsyncAPI document: valid by the published JSON Schema of AsyncAPI 3.0, complete, and true.

`asyncapi-3.0.0.json` beside this file is `schemas/3.0.0.json` of the npm package @asyncapi/specs 6.11.1, unchanged,
Apache-2.0, copyright 2016-2025 AsyncAPI Initiative; SHA-256 below.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qmodd.command_models import COMMANDS
from qmodd.requests import ROLES
from qmodd.schema import asyncapi
from qmodd.schema.models import message_models
from qmodd.settings.tree import tree

PUBLISHED = Path(__file__).parent / "asyncapi-3.0.0.json"
SHA256 = "d4571a420e6ffb7fcc7066c95a6db1202f299a3c51daa103d0706bf30f95e626"
DOCUMENT = json.loads(asyncapi.encoded())


@pytest.fixture(scope="module")
def validator() -> Any:
    raw = PUBLISHED.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == SHA256
    return jsonschema.Draft7Validator(json.loads(raw))


def test_valid_by_the_published_schema(validator: Any) -> None:
    assert [f"{list(e.absolute_path)}: {e.message[:300]}" for e in validator.iter_errors(DOCUMENT)] == []


def _spoil(change: Callable[[Any], object]) -> Any:
    spoilt = copy.deepcopy(DOCUMENT)
    change(spoilt)
    return spoilt


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("info"),
        lambda d: d["channels"]["state"].update(subscribe={}),
        lambda d: d["operations"]["send-state"]["bindings"]["mqtt"].update(qos=3),
        lambda d: d["operations"]["do-command-start"]["reply"]["address"].update(location="nowhere"),
        lambda d: d["components"]["messages"]["State"]["bindings"]["mqtt"].update(contentTyp="x"),
        lambda d: d["components"]["schemas"]["State"].update(type="objekt"),
    ],
)
def test_the_published_schema_would_see_a_mistake(validator: Any, change: Callable[[Any], object]) -> None:
    assert not validator.is_valid(_spoil(change))


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolved(reference: str) -> Any:
    node: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def test_every_reference_leads_somewhere() -> None:
    for reference in set(references(DOCUMENT)):
        assert resolved(reference) is not None


def test_nothing_is_described_and_never_used() -> None:
    """Every schema of a message or an argument is reached from an operation."""
    seen: set[str] = set()
    waiting = set(references(DOCUMENT["operations"]))
    while waiting:
        reference = waiting.pop()
        if reference not in seen:
            seen.add(reference)
            waiting |= set(references(resolved(reference)))
    used = {r.rpartition("/")[2] for r in seen if r.startswith("#/components/schemas/")}
    assert set(DOCUMENT["components"]["schemas"]) == used, "in no channel of qmodd/schema/channels.py"


def test_every_message_and_command_is_there() -> None:
    assert set(message_models()) <= set(DOCUMENT["components"]["schemas"])
    for name, command in COMMANDS.items():
        operation = DOCUMENT["operations"][f"do-command-{name}"]
        assert operation["x-roles"] == sorted(ROLES[name])
        assert operation["x-progress"] == command.progress == (len(operation["reply"]["messages"]) == 2)
        assert operation["summary"]
        channel = resolved(operation["channel"]["$ref"])
        assert channel["address"] == f"qmodd/v1/{{module}}/command/{name}"


def test_replies_go_where_the_request_says() -> None:
    """AsyncAPI wants a channel without address where the request names it."""
    for name, operation in DOCUMENT["operations"].items():
        if operation["action"] == "receive" and "ack" not in name:
            assert operation["reply"]["address"]["location"] == "$message.header#/responseTopic"
            assert resolved(operation["reply"]["channel"]["$ref"])["address"] is None
            assert operation["bindings"]["mqtt"]["retain"] is False
            message = resolved(resolved(operation["messages"][0]["$ref"])["$ref"])
            pattern = message["bindings"]["mqtt"]["responseTopic"]["pattern"]
            jsonschema.validate("qmodd/v1/QM-A-0001/reply/ann", {"pattern": pattern})


def test_parameters_are_those_of_the_address() -> None:
    for channel in DOCUMENT["channels"].values():
        if channel["address"] is not None:
            named = {part[1:-1] for part in channel["address"].split("/") if part.startswith("{")}
            assert named == set(channel["parameters"])


def test_every_setting_can_be_found() -> None:
    paths = DOCUMENT["components"]["parameters"]["path"]["enum"]
    assert {*tree("alice"), *tree("bob")} == set(paths)


def test_it_is_the_same_every_time() -> None:
    before = asyncapi.digest()
    asyncapi.encoded.cache_clear()
    assert asyncapi.digest() == before


def test_it_says_no_secret_and_no_name_of_a_machine() -> None:
    assert b"/home/" not in asyncapi.encoded()
    assert b"/work/" not in asyncapi.encoded()
