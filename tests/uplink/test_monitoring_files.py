"""The shipped Telegraf input and Grafana dashboard, against what modules really publish.

What Telegraf does with a message is written down here once more, for the options that the file uses.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from qmodd.demo.compose import shipped
from qmodd.lifecycle import Activity, Administrative, Operational
from qmodd.messages import Alive, State, StateField
from qmodd.soak import Run
from qmodd.uplink.settings import Counts
from sim.loop import SimulatedLoop
from sim.scenario import Scenario
from tests.docs.pages import DOCS, code, rows, sections

CONFIG = tomllib.loads(shipped("telegraf/qmodd.conf"))
DASHBOARD = json.loads(shipped("grafana/fleet.json"))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
M = "QM-A-0001"
Metric = tuple[str, dict[str, str], dict[str, Any]]


def matches(topic: str, pattern: str) -> bool:
    ours, theirs = topic.split("/"), pattern.split("/")
    return len(ours) == len(theirs) and all(t in ("+", o) for o, t in zip(ours, theirs, strict=True))


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """As Telegraf's JSON format: names of nested fields joined by `_`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}_{key}" if name else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from flat(inner, f"{name}_{number}" if name else str(number))
    elif value is not None:
        yield name, value


def consumed(topic: str, payload: bytes) -> Iterator[Metric]:
    """What the inputs make of one message: measurement, tags, fields."""
    for entry in CONFIG["inputs"]["mqtt_consumer"]:
        if not payload or not any(matches(topic, t) for t in entry["topics"]):
            continue
        words = entry.get("json_string_fields", [])
        fields = {
            n: v
            for n, v in flat(json.loads(payload))
            if not isinstance(v, str | bool) or any(fnmatchcase(n, w) for w in words)
        }
        fields.pop(entry.get("json_time_key", ""), None)
        measurement, tags = "mqtt_consumer", {}
        for parsing in entry["topic_parsing"]:
            if matches(topic, parsing["topic"]):
                pieces = topic.split("/")
                named = dict(zip(parsing["measurement"].split("/"), pieces, strict=True))
                measurement = named["measurement"]
                tags = {k: v for k, v in zip(parsing["tags"].split("/"), pieces, strict=True) if k != "_"}
        if fields:
            yield entry["name_prefix"] + measurement, tags, enumerated(entry["name_prefix"] + measurement, fields)


def enumerated(measurement: str, fields: dict[str, Any]) -> dict[str, Any]:
    out = dict(fields)
    for processor in CONFIG["processors"]["enum"]:
        if measurement in processor["namepass"]:
            for mapping in processor["mapping"]:
                for name in mapping["fields"]:
                    if fields.get(name) in mapping["value_mappings"]:
                        out[mapping["dest"]] = mapping["value_mappings"][fields[name]]
    return out


def prometheus(topic: str, payload: bytes) -> dict[str, float]:
    """Names as Prometheus sees them, with their values; strings are left out (`string_as_label = false`)."""
    out: dict[str, float] = {}
    for measurement, tags, fields in consumed(topic, payload):
        passed = [
            o
            for o in CONFIG["outputs"]["prometheus_client"]
            if any(fnmatchcase(measurement, p) for p in o["namepass"]) and measurement not in o.get("namedrop", [])
        ]
        assert len(passed) == 1, f"{measurement} goes to {len(passed)} outputs"
        assert tags == {"module": M}
        out |= {f"{measurement}_{n}": float(v) for n, v in fields.items() if not isinstance(v, str)}
    return out


def state(activity: Activity = Activity.KEYING, operational: Operational = Operational.ENABLED) -> State:
    def field(value: str) -> StateField:
        return StateField(value=value, why="", since=NOW)

    return State(
        administrative=field(Administrative.UNLOCKED), operational=field(operational), activity=field(activity)
    )


def documented() -> set[str]:
    """Every number of the table of telemetry, by its name in Prometheus; tests compare that table with the code."""
    found = set()
    for group, _, numbers in rows(sections(DOCS / "reference" / "topics.md")["Telemetry"]):
        found |= {f"qmodd_{code(group)}_{n}" for n in re.findall(r"`([^`]+)`", numbers)}
    return found


def queried() -> set[str]:
    expressions = [t["expr"] for p in DASHBOARD["panels"] for t in p["targets"]]
    expressions += [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    return {n for e in expressions for n in re.findall(r"\bqmodd_\w+", e)}


def test_telemetry_of_a_pair_becomes_numbers(tmp_path: Path) -> None:
    """Each number of each group, from the daemon itself."""
    loop = SimulatedLoop()
    run = Run(loop, tmp_path, Scenario(), 1)
    try:
        for site in run.sites.values():
            for group, numbers in site.core.telemetry.groups().items():
                payload = json.dumps({"t": 1.5, "seq": 1, **numbers, "dropped_count": 0}).encode()
                found = prometheus(f"qmodd/v1/{M}/telemetry/{group}", payload)
                assert {f"qmodd_{group}_{n}" for n in numbers} <= set(found)
                assert f"qmodd_{group}_t" not in found
    finally:
        run.close()
        loop.close()


def test_truth_values_of_telemetry_are_taken() -> None:
    payload = json.dumps({"t": 1.0, "seq": 1, "locked": True, "error_deg": 0.5}).encode()
    assert prometheus(f"qmodd/v1/{M}/telemetry/phase", payload)["qmodd_phase_locked"] == 1.0


def test_uplink_s_own_numbers_are_documented() -> None:
    assert {f"qmodd_uplink_{n}" for n in Counts().numbers()} <= documented()


@pytest.mark.parametrize("online", [True, False])
def test_alive_is_a_number(online: bool) -> None:
    alive = Alive(state="online", epoch="0" * 16, version="1", since=NOW)
    payload = (alive if online else alive.offline()).payload()
    assert prometheus(f"qmodd/v1/{M}/alive", payload) == {"qmodd_alive_online": float(online)}


def test_the_life_cycle_is_numbers() -> None:
    numbers = [prometheus(f"qmodd/v1/{M}/state", state(a).payload())["qmodd_state_activity"] for a in Activity]
    assert numbers == list(map(float, range(len(Activity))))
    levels = [prometheus(f"qmodd/v1/{M}/state", state(operational=o).payload()) for o in Operational]
    assert sorted(x["qmodd_state_operational"] for x in levels) == [0.0, 1.0, 2.0]
    assert levels[0]["qmodd_state_unlocked"] == 1.0


def test_the_dashboard_asks_only_for_what_is_published() -> None:
    lives = {"qmodd_alive_online", "qmodd_state_activity", "qmodd_state_operational", "qmodd_state_unlocked"}
    assert queried() - lives - documented() == set()
    assert {"qmodd_kpi_availability", "qmodd_kpi_skr_bps", "qmodd_keys_qber_z", "qmodd_alive_online"} <= queried()


def test_the_dashboard_is_whole() -> None:
    ids = [p["id"] for p in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) > 10
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert panel["title"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        assert all('module=~"$module"' in t["expr"] for t in panel["targets"]), panel["title"]
    cells = [
        (x, y)
        for p in DASHBOARD["panels"]
        for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
        for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie over each other"
    activities = next(
        prop["value"][0]["options"]
        for p in DASHBOARD["panels"]
        for o in p["fieldConfig"]["overrides"]
        for prop in o["properties"]
        if prop["id"] == "mappings"
    )
    assert [activities[str(n)]["text"] for n in range(len(Activity))] == [a.value for a in Activity]
