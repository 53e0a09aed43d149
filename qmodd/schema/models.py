"""JSON Schemas of the models: short, with a meaning at every field, all definitions under one roof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from qmodd import messages
from qmodd.messages import Message
from qmodd.schema.meanings import meaning

Schema = dict[str, Any]
AT_COMPONENTS = "#/components/schemas/{model}"


def message_models() -> dict[str, type[Message]]:
    """Every message by name, in the order of their module."""
    found = vars(messages).values()
    return {m.__name__: m for m in found if isinstance(m, type) and issubclass(m, Message) and m.__name__ != "Message"}


def _inner(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and all that its fields are made of."""
    waiting: list[Any] = [model]
    seen: set[type[BaseModel]] = set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            if one not in seen:
                seen.add(one)
                yield one
                waiting += [f.annotation for f in one.model_fields.values()]
            continue
        waiting += list(getattr(one, "__args__", ()))


def tidy(schema: Any) -> Any:
    """Without titles that repeat a name, descriptions in one line, and no word beside a `$ref` (draft 7 ignores it)."""
    if isinstance(schema, list):
        return [tidy(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: v if k in ("default", "enum", "const", "examples") else tidy(v) for k, v in schema.items()}
    for names in ("properties", "patternProperties", "$defs"):  # here `title` may be a name
        if isinstance(schema.get(names), dict):
            out[names] = {k: tidy(v) for k, v in schema[names].items()}
    if isinstance(out.get("title"), str) and ("type" in out or "anyOf" in out or "properties" in out or len(out) == 1):
        del out["title"]
    if isinstance(out.get("description"), str):
        out["description"] = " ".join(out["description"].split())
    if "$ref" in out and len(out) > 1:
        out["allOf"] = [{"$ref": out.pop("$ref")}]
    return out


def schema_of(model: type[BaseModel], refs: str = "#/$defs/{model}") -> Schema:
    """One model's JSON Schema with the meanings of its fields; `$defs` holds what it is made of."""
    out: Schema = model.model_json_schema(ref_template=refs)
    for one in _inner(model):
        where = out if one is model else out.get("$defs", {}).get(one.__name__, {})
        for name, field in one.model_fields.items():
            found = where.get("properties", {}).get(field.alias or name)
            if found is not None and (text := meaning(one, name)):
                found["description"] = text
    tidied: Schema = tidy(out)
    return tidied


def gathered(models: Mapping[str, type[BaseModel]]) -> dict[str, Schema]:
    """Schemas by name for one place (`#/components/schemas/`), definitions beside them.

    Raises ValueError when two different ones have one name.
    """
    out: dict[str, Schema] = {}
    for name, model in models.items():
        whole = schema_of(model, AT_COMPONENTS)
        for key, value in {**whole.pop("$defs", {}), name: whole}.items():
            if out.setdefault(key, value) != value:
                raise ValueError(f"two different schemas are called {key}")
    return out
