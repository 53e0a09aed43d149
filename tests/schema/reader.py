"""Reads an AsyncAPI document the way somebody does who has nothing else of this project."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema


@dataclass(frozen=True)
class How:
    """How one operation's messages go over MQTT."""

    topic: str
    qos: int
    retain: bool
    expiry_s: int | None
    payload: Mapping[str, Any]


class Reader:
    """`document` as parsed JSON; nothing is known beside it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    def at(self, reference: str) -> Any:
        node: Any = self.document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
        return node

    def followed(self, node: Any) -> Any:
        while "$ref" in node:
            node = self.at(node["$ref"])
        return node

    def operation(self, name: str, **parameters: str) -> How:
        """Topic and MQTT properties of an operation, parameters filled in."""
        operation = self.document["operations"][name]
        binding = operation["bindings"]["mqtt"]
        address = str(self.followed(operation["channel"])["address"])
        message = self.followed(operation["messages"][0])
        expiry = binding.get("messageExpiryInterval")
        return How(_filled(address, parameters), binding["qos"], binding["retain"], expiry, message["payload"])

    def replies(self, name: str) -> list[Mapping[str, Any]]:
        """Payload schemas of what may answer an operation."""
        return [self.followed(m)["payload"] for m in self.document["operations"][name]["reply"]["messages"]]

    def reply_topic(self, **parameters: str) -> str:
        """Where the module sends replies."""
        return self.operation("send-reply-client", **parameters).topic

    def arguments(self, name: str) -> Mapping[str, Any]:
        """Schema of a request's arguments: of the signed text inside of it."""
        body = self.operation(name).payload["properties"]["body"]
        assert body["contentMediaType"] == "application/json"
        inner: Mapping[str, Any] = body["contentSchema"]["properties"]["arguments"]
        return inner

    def validate(self, schema: Mapping[str, Any], value: Any) -> None:
        """Raises jsonschema.ValidationError, also for a signed text inside that is not what it should be."""
        whole = {"allOf": [schema], "components": self.document["components"]}
        jsonschema.Draft7Validator(whole).validate(value)
        for inner, text in _texts(schema, value):
            self.validate(inner, json.loads(text))

    def channel_of(self, topic: str) -> Mapping[str, Any] | None:
        """The channel that a topic belongs to."""
        for channel in self.document["channels"].values():
            if channel["address"] and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", channel["address"]), topic):
                found: Mapping[str, Any] = channel
                return found
        return None

    def check(self, topic: str, payload: bytes) -> None:
        """A message as it came, against its channel. Raises AssertionError, jsonschema.ValidationError."""
        channel = self.channel_of(topic)
        assert channel is not None, f"{topic} is not in the document"
        messages = [self.followed(m) for m in channel["messages"].values()]
        schemas = [m["payload"] for m in messages if m["contentType"] == "application/json"]
        if schemas and payload:
            value = json.loads(payload)
            self.validate({"anyOf": schemas} if len(schemas) > 1 else schemas[0], value)


def _texts(schema: Mapping[str, Any], value: Any) -> list[tuple[Mapping[str, Any], str]]:
    found = []
    for name, field in schema.get("properties", {}).items():
        if "contentSchema" in field and isinstance(value, dict) and name in value:
            found.append((field["contentSchema"], value[name]))
    return found


def _filled(address: str, parameters: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: parameters.get(m[1], m[0]), address)
