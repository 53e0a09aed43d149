"""JSON Schemas of the configuration files, for editors and checks before a file reaches a module."""

from __future__ import annotations

from pydantic import BaseModel

from qmodd import config
from qmodd.kme.settings import KmeSettings
from qmodd.receive import ReceiveSettings
from qmodd.schema.models import Schema, tidy
from qmodd.settings.tree import tree

FILES: dict[str, type[BaseModel]] = {"module": config.Config, "receiver": ReceiveSettings, "kme": KmeSettings}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def configuration(name: str) -> Schema:
    """Of one kind of file, by its name in FILES. What is a setting has its meaning with it."""
    schema: Schema = tidy(FILES[name].model_json_schema())
    if name == "module":
        for leaf in {**tree("alice"), **tree("bob")}.values():
            (reference,) = _references(schema["properties"][leaf.section])
            fields = schema["$defs"][reference.rpartition("/")[2]]["properties"]
            fields[leaf.name].setdefault("description", leaf.description)
    return {"$schema": DIALECT, **schema}


def _references(schema: Schema) -> list[str]:
    return [s["$ref"] for s in (schema, *schema.get("allOf", ()), *schema.get("anyOf", ())) if "$ref" in s]
