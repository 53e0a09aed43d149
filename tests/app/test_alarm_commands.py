"""`acknowledge`, `shelve`, `maintenance`: what is refused, and what is afterwards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qmodd.app.alarm_commands import alarm_handlers
from qmodd.app.alarm_desk import AlarmDesk
from qmodd.app.wiring import Wiring
from qmodd.clock import SystemClock
from qmodd.events import EventLog
from qmodd.outbox import Outbox
from qmodd.requests import ROLES, Refusal


@pytest.fixture
def desk(tmp_path: Path) -> AlarmDesk:
    clock = SystemClock()
    return AlarmDesk(tmp_path / "alarms.json", clock, Outbox(None), EventLog(None, clock, "QM-B-0001"))


async def do(desk: AlarmDesk, name: str, **arguments: Any) -> dict[str, Any]:
    return await alarm_handlers(cast(Wiring, SimpleNamespace(alarms=desk)))[name](arguments)


def test_operators_may_give_them() -> None:
    assert all("operator" in ROLES[name] and "viewer" not in ROLES[name] for name in alarm_handlers(cast(Wiring, None)))


@pytest.mark.parametrize(
    ("name", "arguments", "code", "match"),
    [
        ("acknowledge", {"alarm": "no-light"}, "wrong_state", "not active"),
        ("acknowledge", {}, "bad_arguments", "alarm must be a text"),
        ("acknowledge", {"alarm": "x", "colour": 1}, "bad_arguments", "unknown argument 'colour'"),
        ("shelve", {"alarm": "no-such", "seconds": 5}, "bad_arguments", "no alarm is called"),
        ("shelve", {"alarm": "no-light"}, "bad_arguments", "a number is wanted"),
        ("shelve", {"alarm": "no-light", "seconds": 0}, "bad_arguments", "1 to 604800"),
        ("shelve", {"alarm": "no-light", "seconds": 1e9}, "bad_arguments", "1 to 604800"),
        ("maintenance", {"seconds": True}, "bad_arguments", "a number is wanted"),
        ("maintenance", {"seconds": float("nan")}, "bad_arguments", "a number is wanted"),
        ("maintenance", {"seconds": -1}, "bad_arguments", "0 to 604800"),
        ("maintenance", {"seconds": 1, "why": 3}, "bad_arguments", "why must be a text"),
    ],
)
async def test_refused_without_effect(
    desk: AlarmDesk, name: str, arguments: dict[str, Any], code: str, match: str
) -> None:
    with pytest.raises(Refusal, match=match) as e:
        await do(desk, name, **arguments)
    assert e.value.code == code
    assert desk.events.entries == []
    assert not desk.path.exists()


async def test_answers_with_what_is(desk: AlarmDesk) -> None:
    desk.observe({"internal-error": "KeyError"})
    answer = await do(desk, "acknowledge", alarm="internal-error")
    (alarm,) = answer["alarms"]
    assert (alarm["id"], alarm["acknowledged"], answer["maintenance_s"]) == ("internal-error", "local", 0.0)
    (alarm,) = (await do(desk, "shelve", alarm="internal-error", seconds=60))["alarms"]
    assert alarm["shelved_until"] is not None
    assert 59.0 < (await do(desk, "maintenance", seconds=60, why="fibre work"))["maintenance_s"] <= 60.0
    assert (await do(desk, "maintenance", seconds=0))["maintenance_s"] == 0.0
