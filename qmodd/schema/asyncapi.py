"""The MQTT face as one AsyncAPI 3.0 document: channels with parameters, messages with schemas, operations with MQTT
bindings, and for every command its arguments, its answer and where the answer goes.

It is written from the module's side: it sends states and answers, and receives requests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from qmodd import __version__
from qmodd.command_models import COMMANDS, SET, Arguments, Command
from qmodd.command_results import Result
from qmodd.messages import ROOT
from qmodd.requests import ROLES
from qmodd.schema.channels import CHANNELS, GROUPS, KEY_BATCH, PARAMETERS, TELEMETRY, Channel
from qmodd.schema.models import gathered, message_models, tidy
from qmodd.schema.words import ABOUT, ANSWERS, HEADERS
from qmodd.settings.tree import tree

Object = dict[str, Any]
VERSION = "3.0.0"
BINDING = {"bindingVersion": "0.2.0"}
EXPIRY_S = 60
ANSWER = "answer"  # the channel of replies whose address the request names
REQUESTS = ("command/<name>", "set/<path>")
NUMBER = {"type": ["number", "boolean"]}


def document() -> Object:
    """The document, the same on every module of this version."""
    commands = _commands()
    channels = [c for c in CHANNELS if c.topic != "command/<name>"]
    return {
        "asyncapi": VERSION,
        "id": "urn:qmodd:mqtt:v1",
        "info": {
            "title": "qmodd: control of QKD modules over MQTT",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": {
            **{c.name: _channel(c) for c in channels},
            **{name: _command_channel(name) for name in commands},
            ANSWER: _answer_channel(commands),
        },
        "operations": {
            **dict(_operation(c) for c in channels if c.topic not in REQUESTS),
            **{f"do-{name}": _request_operation(name, command) for name, command in commands.items()},
        },
        "components": {
            "schemas": _schemas(),
            "messages": _messages(commands),
            "parameters": {name: _parameter(name, text) for name, text in PARAMETERS.items()},
            "securitySchemes": {"certificate": {"type": "X509", "description": "mTLS; the subject's CN is the user"}},
        },
    }


@cache
def encoded() -> bytes:
    """The document as it is printed and published: JSON in ASCII."""
    return json.dumps(document(), separators=(",", ":")).encode("ascii")


def digest() -> str:
    return hashlib.sha256(encoded()).hexdigest()


# requests: every command, and `set`


def _commands() -> dict[str, Command]:
    """By channel: `command-start`; and `set-path`, which is one for all settings."""
    return {**{f"command-{name}": command for name, command in COMMANDS.items()}, "set-path": SET}


def _pascal(channel: str) -> str:
    words = channel.removeprefix("command-").removesuffix("-path").split("-")
    return "".join(word.capitalize() for word in words)


def _roles(channel: str) -> list[str]:
    name = channel.removeprefix("command-")
    return sorted(ROLES[name]) if name in ROLES else []


def _command_channel(channel: str) -> Object:
    topic = "set/<path>" if channel == "set-path" else f"command/{channel.removeprefix('command-')}"
    name = f"{_pascal(channel)}Request"
    return {
        "address": _address(topic),
        "messages": {name: _ref("messages", name)},
        "parameters": _parameters(topic),
    }


def _answer_channel(commands: Mapping[str, Command]) -> Object:
    names = [*(f"{_pascal(channel)}Reply" for channel in commands), "Progress"]
    return {
        "address": None,
        "description": ANSWERS,
        "messages": {name: _ref("messages", name) for name in names},
    }


def _request_operation(channel: str, command: Command) -> Object:
    """`x-roles` may give it, by certificate; `x-errors`: refusals beside those of every request; `x-approval`: a second
    person has to approve it; `x-progress`: Progress may come before the reply."""
    name = _pascal(channel)
    replies = [f"{name}Reply", *(["Progress"] if command.progress else [])]
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": command.does,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}Request"}],
        "bindings": {"mqtt": {"qos": 1, "retain": False, "messageExpiryInterval": EXPIRY_S, **BINDING}},
        "reply": {
            "address": {"location": "$message.header#/responseTopic", "description": ANSWERS},
            "channel": {"$ref": f"#/channels/{ANSWER}"},
            "messages": [{"$ref": f"#/channels/{ANSWER}/messages/{reply}"} for reply in replies],
        },
        **({"x-roles": roles} if (roles := _roles(channel)) else {}),
        "x-progress": command.progress,
        "x-approval": command.approval,
        "x-errors": list(command.errors),
    }


# everything else


def _channel(channel: Channel) -> Object:
    if channel.topic == "set/<path>":
        return _command_channel(channel.name)
    names = channel.messages or ("SchemaPage",)
    return {
        "address": _address(channel.topic),
        "description": channel.what,
        "messages": {name: _ref("messages", name) for name in names},
        "parameters": _parameters(channel.topic),
    }


def _operation(channel: Channel) -> tuple[str, Object]:
    """What the module sends, and acknowledgements, which it receives."""
    receives = channel.writer != "module"
    name = f"{'receive' if receives else 'send'}-{channel.name}"
    messages = channel.messages or ("SchemaPage",)
    return name, {
        "action": "receive" if receives else "send",
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": channel.what,
        "messages": [{"$ref": f"#/channels/{channel.name}/messages/{m}"} for m in messages],
        "bindings": {
            "mqtt": {"qos": channel.qos, "retain": channel.retained in ("yes", "while active"), **BINDING},
        },
    }


def _address(topic: str) -> str:
    return f"{ROOT}/{{module}}/{topic.replace('<', '{').replace('>', '}')}"


def _parameters(topic: str) -> Object:
    names = ("module", *Channel(topic, "module", (), "").parameters)
    return {name: _ref("parameters", name) for name in names}


def _parameter(name: str, text: str) -> Object:
    known = {"group": sorted(GROUPS), "path": sorted({*tree("alice"), *tree("bob")})}
    return {"description": text, **({"enum": known[name]} if name in known else {})}


def _ref(kind: str, name: str) -> Object:
    return {"$ref": f"#/components/{kind}/{name}"}


def _servers() -> Object:
    session = {"sessionExpiryInterval": 30, "cleanSession": False, **BINDING}
    will = {"topic": f"{ROOT}/<module>/alive", "qos": 1, "retain": True, "message": "Alive with state offline"}
    return {
        "lab": {
            "host": "127.0.0.1:1883",
            "protocol": "mqtt",
            "protocolVersion": "5.0",
            "description": "without TLS, on one host; the binding is how the module connects",
            "bindings": {"mqtt": {**session, "lastWill": will}},
        },
        "site": {
            "host": "{broker}:8883",
            "protocol": "mqtts",
            "protocolVersion": "5.0",
            "variables": {"broker": {"description": "the site's broker"}},
            "security": [{"$ref": "#/components/securitySchemes/certificate"}],
            "bindings": {"mqtt": {**session, "lastWill": will}},
        },
    }


# components


# Messages whose `body` is a signed text, and what is in it.
SIGNED = {
    "Certificate": "CertificateBody",
    "Request": "RequestBody",
    "KeyAck": "KeyAckBody",
    "KeyNotice": "KeyNoticeBody",
    "KeyNoticeAck": "KeyNoticeAckBody",
}


def _schemas() -> Object:
    models: dict[str, Any] = dict(message_models())
    for channel, command in _commands().items():
        models[f"{_pascal(channel)}Arguments"] = command.arguments
        models[f"{_pascal(channel)}Result"] = command.result
    found = gathered(models)
    for name, body in SIGNED.items():
        found[name]["properties"]["body"] |= _text_of(_ref("schemas", body))
    return {
        **found,
        TELEMETRY: {
            "type": "object",
            "description": "flat: `t` is UTC in s since 1970, every other number has its unit at the end of its name",
            "properties": {"t": {"type": "number"}, "seq": {"type": "integer", "minimum": 0}},
            "required": ["t", "seq"],
            "additionalProperties": NUMBER,
        },
    }


def _messages(commands: Mapping[str, Command]) -> Object:
    out = {name: _message(name, _ref("schemas", name)) for c in CHANNELS for name in c.messages if name != "Request"}
    out[TELEMETRY] = _message(TELEMETRY, _ref("schemas", TELEMETRY))
    out[KEY_BATCH] = _message(
        KEY_BATCH, {"type": "string", "format": "binary", "description": "deterministic CBOR"}, "application/cbor"
    )
    out["SchemaPage"] = _message("SchemaPage", {"type": "string"}, "text/plain")
    for channel, command in commands.items():
        name = _pascal(channel)
        out[f"{name}Request"] = _request(name, command.arguments)
        out[f"{name}Reply"] = _reply(name, command.result)
    out["Reply"] |= _correlated()
    out["Progress"] |= _correlated()
    return out


def _message(name: str, payload: Object, content: str = "application/json") -> Object:
    text = int(content != "application/cbor")
    return {
        "name": name,
        "contentType": content,
        "payload": payload,
        "bindings": {"mqtt": {"payloadFormatIndicator": text, "contentType": content, **BINDING}},
    }


def _correlated() -> Object:
    return {"headers": HEADERS, "correlationId": {"location": "$message.header#/correlationData"}}


def _request(name: str, arguments: type[Arguments]) -> Object:
    """The body is a text, for its bytes are signed; what is in it stands under `contentSchema`."""
    body = {"allOf": [_ref("schemas", "RequestBody")], "properties": {"arguments": _ref("schemas", f"{name}Arguments")}}
    text = {"type": "string", **_text_of(body)}
    message = _message(f"{name}Request", {"allOf": [_ref("schemas", "Request")], "properties": {"body": text}})
    message |= {"summary": tidy({"description": arguments.__doc__ or ""})["description"], **_correlated()}
    message["bindings"]["mqtt"] |= {
        "responseTopic": {"type": "string", "pattern": f"^{ROOT}/[^/]+/reply/[^/]+$"},
        "correlationData": {"type": "string", "format": "binary"},
    }
    return message


def _text_of(schema: Object) -> Object:
    return {"contentMediaType": "application/json", "contentSchema": schema}


def _reply(name: str, result: type[Result]) -> Object:
    return {
        **_message(
            f"{name}Reply",
            {"allOf": [_ref("schemas", "Reply")], "properties": {"result": _nullable(f"{name}Result")}},
        ),
        **_correlated(),
    }


def _nullable(name: str) -> Object:
    return {"anyOf": [_ref("schemas", name), {"type": "null"}]}
