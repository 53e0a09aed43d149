"""What docs/reference/topics.md has to say: tables of topics, messages, commands and arguments, from the models."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from qmodd.command_models import COMMANDS
from qmodd.command_results import Result, StateNow
from qmodd.requests import ROLES
from qmodd.schema.channels import CHANNELS, Channel
from qmodd.schema.meanings import meaning
from qmodd.schema.models import message_models, schema_of
from tests.docs.pages import DOCS

PAGE = DOCS / "reference" / "topics.md"
ORDER = ("viewer", "operator", "maintainer", "security")
Row = list[str]


def topics() -> list[Row]:
    return [[f"`{c.topic}`", c.retained, str(c.qos), _writer(c), _payload(c)] for c in CHANNELS]


def _writer(channel: Channel) -> str:
    return "module; by its will when it is gone" if channel.topic == "alive" else channel.writer


def _payload(channel: Channel) -> str:
    names = " or ".join(f"`{m}`" for m in channel.messages if m in message_models())
    return f"{names}: {channel.what}" if names else channel.what


def fields(name: str) -> list[Row]:
    """Of one message: field, kind, meaning."""
    model = message_models()[name]
    properties = schema_of(model)["properties"]
    return [[f"`{n}`", kind(properties[n]), meaning(model, n)] for n in model.model_fields]


def commands() -> list[Row]:
    out = []
    for name, command in COMMANDS.items():
        roles = ", ".join(r for r in ORDER if r in ROLES[name])
        answer = _answer(command.result)
        errors = ", ".join(f"`{e}`" for e in command.errors) or "-"
        out.append([f"`{name}`", roles, command.does, answer, errors, _yes(command.progress), _yes(command.approval)])
    return out


def _answer(result: type[Result]) -> str:
    own = [f"`{n}`" for n in result.model_fields if n not in StateNow.model_fields]
    return ", ".join([*(["the state"] if issubclass(result, StateNow) else []), *own])


def arguments() -> list[Row]:
    out = []
    for name, command in COMMANDS.items():
        schema = schema_of(command.arguments)
        for key, field in schema.get("properties", {}).items():
            required = key in schema.get("required", ())
            out.append([f"`{name}`", f"`{key}`", kind(field), default(field, required), field.get("description", "")])
    return out


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def default(field: dict[str, Any], required: bool) -> str:
    value = field.get("default")
    if required:
        return "required"
    if value in (None, "", [], {}):
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def kind(field: dict[str, Any]) -> str:
    """A field's JSON schema in words."""
    if refs := [*([field] if "$ref" in field else []), *field.get("allOf", ())]:
        names = " and ".join(f"`{r['$ref'].rpartition('/')[2]}`" for r in refs)
        return names.replace("`JsonValue`", "anything")
    if "anyOf" in field:
        return " or ".join(kind(s) for s in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{v}`" for v in field.get("enum", [field.get("const")]))
    text = _WORDS.get(str(field.get("type")), "anything")
    if field.get("type") == "string":
        text = _text(field)
    if field.get("type") == "array":
        return f"list of {_grouped(field['items'])}{_most(field, 'maxItems', '')}"
    if field.get("type") == "object":
        inner = [*field.get("patternProperties", {}).values(), *_as_list(field.get("additionalProperties"))]
        return f"table of {kind(inner[0])} by name" if inner else text
    return text + _limits(field)


def _grouped(field: dict[str, Any]) -> str:
    return f"({kind(field)})" if "anyOf" in field else kind(field)


_WORDS = {
    "number": "number",
    "integer": "integer",
    "boolean": "true or false",
    "object": "table",
    "null": "null",
    "string": "text",
}


def _as_list(schema: Any) -> list[dict[str, Any]]:
    return [schema] if isinstance(schema, dict) else []


def _text(field: dict[str, Any]) -> str:
    if field.get("format") == "date-time":
        return "time"
    return "text" + _most(field, "maxLength", " characters")


def _most(field: dict[str, Any], key: str, unit: str) -> str:
    return f", at most {field[key]}{unit}" if key in field else ""


def _limits(field: dict[str, Any]) -> str:
    low, high, unit = field.get("minimum"), field.get("maximum"), field.get("unit", "")
    space = f" {unit}" if unit else ""
    if low is not None and high is not None:
        return f", {low:g} to {high:g}{space}"
    words = {"at least": low, "above": field.get("exclusiveMinimum"), "at most": high}
    found = "".join(f", {word} {value:g}{space}" for word, value in words.items() if value is not None)
    return found or (f", {unit}" if unit else "")


# bringing the page up to date

HEADS: dict[str, list[str]] = {
    "Topics": ["topic", "retained", "QoS", "from", "payload"],
    "Commands": ["command", "roles", "does", "answer", "errors of its own", "progress", "approval"],
    "Arguments": ["command", "argument", "kind", "default", "meaning"],
}
FIELDS = ["field", "kind", "meaning"]


def wanted() -> dict[str, tuple[list[str], list[Row]]]:
    """Head and rows of every generated table, by the heading that it stands below."""
    tables = {"Topics": topics(), "Commands": commands(), "Arguments": arguments()}
    found = {name: (HEADS[name], table) for name, table in tables.items()}
    return found | {name: (FIELDS, fields(name)) for name in message_models()}


def table(head: list[str], body: list[Row]) -> str:
    cut = [[cell.replace("|", "\\|") for cell in cells] for cells in (head, *body)]
    lines = [f"| {' | '.join(cells)} |" for cells in cut]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]]) + "\n"


def refreshed(text: str) -> str:
    """The page with every such table as it has to be; prose stays. A message without a section gets one."""
    for name, model in message_models().items():
        if not re.search(rf"^### {name}$", text, re.M):
            about = textwrap.fill(" ".join((model.__doc__ or "").split()), 118, break_on_hyphens=False)
            section = f"### {name}\n\n{about}\n\n{table(FIELDS, fields(name))}\n"
            text = text.replace("## Telemetry\n", f"{section}## Telemetry\n", 1)
    parts = re.split(r"^(#+ .*)$", text, flags=re.M)
    for i in range(1, len(parts), 2):
        heading = parts[i].lstrip("# ").replace("`", "").strip()
        if heading in wanted():
            parts[i + 1] = _replaced(parts[i + 1], *wanted()[heading])
    return "".join(parts)


def _replaced(section: str, head: list[str], body: list[Row]) -> str:
    lines = section.splitlines(keepends=True)
    at = [i for i, line in enumerate(lines) if line.startswith("|")]
    if not at:
        return f"{section.rstrip()}\n\n{table(head, body)}\n"
    return "".join([*lines[: at[0]], table(head, body), *lines[at[-1] + 1 :]])
