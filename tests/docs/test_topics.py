"""docs/reference/topics.md against the models, the outbox's topics, the handlers, the refusals and the events."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from calibration.store import Kind
from qmodd import messages
from qmodd.app.commands import handlers
from qmodd.app.telemetry import Telemetry
from qmodd.command_models import COMMANDS
from qmodd.keys.happenings import EVENTS
from qmodd.messages import Message
from qmodd.requests import ROLES
from qmodd.schema.meanings import meaning, table
from qmodd.soak import Run
from qmodd.uplink.topics import Topics
from sim.loop import SimulatedLoop
from sim.scenario import Scenario
from tests.app.pair import simulate, until_keying
from tests.docs import topics_page
from tests.docs.pages import DOCS, ROOT, code, rows, sections

PAGE = DOCS / "reference" / "topics.md"
MODELS = {
    n: m for n, m in vars(messages).items() if isinstance(m, type) and issubclass(m, Message) and m is not Message
}
# Calls by which core tells an event; uplink's own `_report` goes to its log only.
TELLERS = {"record", "_event", "on_event", "audit", "report", "callback"}
EVENT = re.compile(r"[a-z]+(\.[a-z_]+)+")


def first_column(heading: str) -> list[str]:
    return [code(row[0]) for row in rows(sections(PAGE)[heading])]


@pytest.mark.parametrize("heading", topics_page.wanted())
def test_tables_are_those_of_the_models(heading: str) -> None:
    found = rows(sections(PAGE).get(heading, ""))
    assert found == topics_page.wanted()[heading][1], "`python -m tests.docs.refresh` brings the tables up to date"


@pytest.mark.parametrize("name", MODELS)
def test_every_field_has_a_meaning(name: str) -> None:
    """A word in the model, or in qmodd/schema/meanings.toml; and none there for a field that is not."""
    assert [n for n in MODELS[name].model_fields if not meaning(MODELS[name], n)] == []
    assert set(table().get(name, {})) <= set(MODELS[name].model_fields)


def sources(*parts: str) -> Iterator[tuple[Path, str]]:
    for path in sorted((ROOT / "qmodd").rglob("*.py")):
        if not parts or path.relative_to(ROOT / "qmodd").parts[0] in parts:
            yield path, path.read_text()


def test_topics_of_uplink() -> None:
    topics = Topics("M")
    written = {topics.alive, topics.telemetry("<group>"), topics.command("<name>"), topics.reply("<client>")}
    assert {t.removeprefix("qmodd/v1/M/") for t in written} <= set(first_column("Topics"))
    assert topics.acknowledging("qmodd/v1/M/keys/<recipient>/ack") == "<recipient>"


def test_commands_and_who_may_give_them() -> None:
    known = handlers(cast(Any, None), cast(Any, None))
    documented = {code(row[0]): set(row[1].split(", ")) for row in rows(sections(PAGE)["Commands"])}
    assert documented == {name: set(ROLES[name]) for name in known}


def test_refusal_codes() -> None:
    text = "\n".join(t for _, t in sources())
    raised = set(re.findall(r'(?:Refusal|Untrusted)\(\s*"([a-z_]+)"', text))
    known = set(first_column("Refusal codes"))
    assert known == raised | {"out_of_range", "device", "bad_arguments"}
    assert set().union(*(command.errors for command in COMMANDS.values())) <= known


def told(tree: ast.AST) -> Iterator[str]:
    """Names of events in calls that tell one."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name not in TELLERS:
            continue
        for argument in node.args[:2]:
            for inner in ast.walk(argument) if isinstance(argument, ast.IfExp) else [argument]:
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and EVENT.fullmatch(inner.value):
                    yield inner.value


def test_events() -> None:
    found = {e for path, text in sources() if path.parent.name not in ("demo", "uplink") for e in told(ast.parse(text))}
    ledger = {f"phase.{name}" for name in ("lost", "relocked", "wrap", "fault")}
    changes = ledger | {"calibration.stored", *(f"calibration.{kind}" for kind in Kind if kind is not Kind.RECORD)}
    # Built of what happens to an alarm.
    changes |= {f"alarm.{w}" for w in ("raised", "cleared", "acknowledged", "shelved", "released", "suppressed")}
    states = changes | {f"state.{n}" for n in ("administrative", "operational", "activity", "inhibited", "allowed")}
    # Queued in the key store's own transactions.
    states |= EVENTS | {"key.account"}
    documented = set(first_column("Events"))
    assert found | states == documented, (
        "the table of events in docs/reference/topics.md has to name all and only these"
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Telemetry]]:
    """Telemetry of both modules of a pair that does not run."""
    loop = SimulatedLoop()
    run = Run(loop, tmp_path_factory.mktemp("pair"), Scenario(), 1)
    yield {name: site.core.telemetry for name, site in run.sites.items()}
    run.close()
    loop.close()


def documented_numbers(group: str) -> tuple[str, list[str]]:
    for name, module, numbers in rows(sections(PAGE)["Telemetry"]):
        if code(name) == group:
            return module, re.findall(r"`([^`]+)`", numbers)
    raise AssertionError(f"telemetry group {group!r} is not documented")


def test_telemetry_that_does_not_depend_on_the_hardware(pair: dict[str, Telemetry]) -> None:
    for module, telemetry in pair.items():
        groups = telemetry.groups()
        for group in ("keys", "link"):
            assert documented_numbers(group) == ("both", list(groups[group]))
        for group in groups:
            assert documented_numbers(group)[0] in ("both", module)


def matches(name: str, documented: list[str]) -> bool:
    return any(re.fullmatch(re.sub("<[^>]*>", "[a-z0-9_]+", pattern), name) for pattern in documented)


def test_telemetry_of_a_pair_that_makes_keys(tmp_path: Path) -> None:
    """Every number that it tells is in the table."""
    seen: dict[str, set[str]] = {}

    async def script(run: Run) -> None:
        await until_keying(run)
        await asyncio.sleep(30.0)
        for site in run.sites.values():
            for group, numbers in site.core.telemetry.groups().items():
                seen.setdefault(group, set()).update(numbers)

    simulate(tmp_path, script).close()
    for group in ("thermal", "optics", "phase", "detectors"):
        missing = [n for n in sorted(seen[group]) if not matches(n, documented_numbers(group)[1])]
        assert missing == [], group
