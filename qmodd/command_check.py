"""Arguments against the model of their command, before a handler runs: a refusal names field, value, unit and limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue, ValidationError

from qmodd.command_models import COMMANDS, Arguments
from qmodd.messages import Limit
from qmodd.requests import Arguments as Given
from qmodd.requests import Handler, Refusal

SHOWN_CHARS = 80
_LIMITS = ("greater_than_equal", "less_than_equal", "greater_than", "less_than")


def checked(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    """The same handlers, each behind the model of its arguments. One without a model checks for itself."""
    return {name: _checked(name, handler) for name, handler in handlers.items()}


def _checked(name: str, handler: Handler) -> Handler:
    command = COMMANDS.get(name)
    if command is None:
        return handler
    known = command

    async def behind(arguments: Given) -> dict[str, Any]:
        check(known.arguments, arguments)
        return await handler(arguments)

    return behind


def check(model: type[Arguments], arguments: Given) -> None:
    """Raises Refusal with field, value, unit and limit of the first argument that does not fit."""
    try:
        model.model_validate(dict(arguments))
    except ValidationError as e:
        errors = e.errors(include_url=False)
        unknown = (x for x in errors if x["type"] == "extra_forbidden")
        raise _refusal(model, next(unknown, errors[0])) from None


def _refusal(model: type[Arguments], error: Any) -> Refusal:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(f.alias or n for n, f in model.model_fields.items())
        return Refusal("bad_arguments", f"unknown argument {name[:64]!r}; allowed: {allowed or 'none'}")
    schema = _schema(model, name)
    if error["type"] == "missing":
        return Refusal("bad_arguments", _missing(name, schema))
    value = error["input"]
    if error["type"] in _LIMITS:
        return _beyond(name, float(value), schema)
    return Refusal("bad_arguments", _words(name, value, schema))


def _schema(model: type[Arguments], name: str) -> Mapping[str, Any]:
    """Of one argument; empty for what is inside of one."""
    schema: Mapping[str, Any] = model.model_json_schema()["properties"].get(name, {})
    return next((s for s in schema.get("anyOf", ()) if s.get("type") != "null"), schema)


def _beyond(name: str, value: float, schema: Mapping[str, Any]) -> Refusal:
    low, high, unit = schema.get("minimum"), schema.get("maximum"), str(schema.get("unit", ""))
    space = f" {unit}" if unit else ""
    span = f"at least {low:g}{space}" if high is None else f"{low:g} to {high:g}{space}"
    message = f"{name} = {value:.15g}{space}: {span} is allowed; nothing was changed"
    return Refusal("out_of_range", message, Limit(output=name, value=value, low=low, high=high, unit=unit))


def _missing(name: str, schema: Mapping[str, Any]) -> str:
    return f"{name} is missing: {_wanted(schema)}"


def _words(name: str, value: JsonValue, schema: Mapping[str, Any]) -> str:
    if schema.get("type") == "string" and "enum" not in schema:
        return f"{name} must be {_wanted(schema)}"
    shown = repr(value)
    shown = shown if len(shown) <= SHOWN_CHARS else f"{shown[:SHOWN_CHARS]}..."
    return f"{name} = {shown}: {_wanted(schema)}"


def _wanted(schema: Mapping[str, Any]) -> str:
    """What a field takes, in words."""
    if "enum" in schema:
        return f"{', '.join(map(str, schema['enum']))} is allowed"
    match schema.get("type"):
        case "boolean":
            return "true or false is allowed"
        case "number":
            return "a number is wanted"
        case "integer":
            return "a whole number is wanted"
        case "array":
            return "a list is wanted"
        case "string":
            low, high = schema.get("minLength", 0), schema.get("maxLength")
            return f"a text of {low} to {high} characters" if high else "a text"
        case _:
            return "not of the allowed form"
