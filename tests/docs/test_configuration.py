"""docs/reference/configuration.md says of every key what the models say: name, kind and limits, default."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from qmodd import config
from qmodd.kme.settings import KmeSettings, PairSettings
from qmodd.receive import ReceiveSettings, SenderSettings, SinkSettings
from qmodd.uplink.mqtt_link import BrokerSettings
from sim import scenario
from tests.docs.pages import DOCS, code, rows, sections

PAGE = DOCS / "reference" / "configuration.md"
OUTDATED = "`python -m tests.docs.refresh` brings the tables up to date; say what a new key means"
MODELS: dict[str, type[BaseModel]] = {
    "[module]": config.ModuleSection,
    "[pair]": config.PairSection,
    "[[device]]": config.DeviceSection,
    "[source]": config.SourceSection,
    "[receiver]": config.ReceiverSection,
    "[keys]": config.KeysSection,
    "[control]": config.ControlSection,
    "[safety]": config.SafetySection,
    "[selftest]": config.SelftestSection,
    "[alarms]": config.AlarmsSection,
    "[uplink]": config.UplinkSection,
    "[[recipient]]": config.RecipientSection,
    "Receiver: top level": ReceiveSettings,
    "Receiver: [broker]": BrokerSettings,
    "Receiver: [[sender]]": SenderSettings,
    "Receiver: [sink]": SinkSettings,
    "KME: top level": KmeSettings,
    "KME: [[pair]]": PairSettings,
    "Scenario: top level": scenario.Scenario,
    "Scenario: [link]": scenario.Link,
    "Scenario: [detection]": scenario.Detection,
    "Scenario: [ambient]": scenario.Ambient,
    "Scenario: [start]": scenario.Start,
    "Scenario: [modules]": scenario.Modules,
    "Scenario: [drifts]": scenario.Drifts,
    "Scenario: [[fault]]": scenario.FaultLine,
}


def kind(schema: dict[str, Any]) -> str:
    """A field's JSON schema in the words of the page."""
    if "anyOf" in schema:
        return " or ".join(kind(s) for s in schema["anyOf"] if s.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{v}`" for v in schema["enum"])
    name = {"number": "number", "integer": "integer", "boolean": "true or false", "object": "table", "array": "list"}
    text = "file" if schema.get("format") == "path" else name.get(schema.get("type", ""), "text")
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{text}, {low:g} to {high:g}"
    limits = {"at least": low, "above": above, "at most": high, "below": below}
    return ", ".join([text, *(f"{word} {value:g}" for word, value in limits.items() if value is not None)])


def default(schema: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    value = schema.get("default")
    if value is None or value == {} or value == []:
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:.7g}`" if isinstance(value, float) else f"`{value}`"


def expected(model: type[BaseModel], *, tables: bool = False) -> list[list[str]]:
    """(key, kind, default) of every field; those that are sections of their own only if `tables`."""
    schema = model.model_json_schema()
    wanted = []
    for name, field in schema["properties"].items():
        inner = field.get("items", field)
        if tables or not any("$ref" in part or "allOf" in part for part in [inner, *inner.get("anyOf", [])]):
            wanted.append([f"`{name}`", kind(field), default(field, name in schema.get("required", []))])
    return wanted


@pytest.mark.parametrize("heading", MODELS)
def test_every_key_is_documented_with_its_limits(heading: str) -> None:
    found = [row[:3] for row in rows(sections(PAGE)[heading])]
    assert found == expected(MODELS[heading]), OUTDATED


@pytest.mark.parametrize("heading", MODELS)
def test_every_key_has_a_meaning(heading: str) -> None:
    for row in rows(sections(PAGE)[heading]):
        assert len(row) == 4, row
        assert row[3], row


def test_every_section_of_the_models_is_on_the_page() -> None:
    named = {f"[{n}]" for n in config.Config.model_fields} | {f"[[{n}]]" for n in config.Config.model_fields}
    documented = {h for h in sections(PAGE) if h.startswith("[")}
    assert documented <= named
    assert {h.strip("[]") for h in documented} == set(config.Config.model_fields)


def test_the_roles_of_each_kind_of_module_are_listed() -> None:
    listed: dict[str, set[str]] = {"alice": set(), "bob": set()}
    for role, _, who, *_ in rows(sections(PAGE)["Roles"]):
        for module in ("alice", "bob") if who == "both" else (who,):
            listed[module].add(code(role))
    assert listed == {module: set(roles) for module, roles in config.ROLES_OF.items()}
