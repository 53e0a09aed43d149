"""Settings at run time without a pair: what is in force, on disk and told, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from qmodd.app import setting_desk
from qmodd.requests import Refusal
from qmodd.settings.overrides import FILE
from qmodd.settings.tree import tree
from tests.app.setting_bench import HOT, LIMIT, MODE, RAMP, TARGET, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    yield made
    made.close()


async def refusal(what: Any) -> Refusal:
    with pytest.raises(Refusal) as e:
        await what
    return e.value


def test_all_settings_are_told_at_the_start(bench: Bench) -> None:
    assert set(bench.retained()) == set(tree("alice"))
    one = bench.retained()[LIMIT]
    assert (one.value, one.default, one.origin, one.low, one.before) == (1_000_000, 1_000_000, "file", 100, None)


async def test_set_is_in_force_kept_told_and_on_record(bench: Bench) -> None:
    answer = await bench.set(LIMIT, 500)
    assert (answer["value"], answer["origin"], answer["before"], answer["changed"]) == (500, "set", 1_000_000, True)
    assert bench.value(LIMIT) == 500
    assert bench.told[-1].keys.store_limit == 500
    assert bench.retained()[LIMIT].value == 500
    (event,) = bench.recorded("setting.changed")
    assert {k: event[k] for k in ("setting", "value", "before", "by", "how")} == {
        "setting": LIMIT,
        "value": 500,
        "before": 1_000_000,
        "by": "local",
        "how": "set",
    }
    bench.start()
    assert bench.value(LIMIT) == 500


async def test_undo_returns_to_what_was_before(bench: Bench) -> None:
    await bench.set(LIMIT, 500)
    await bench.set(LIMIT, 600)
    bench.start()
    assert (await bench.undo(LIMIT))["value"] == 500
    answer = await bench.undo(LIMIT)
    assert (answer["value"], answer["origin"], answer["before"]) == (1_000_000, "file", None)
    e = await refusal(bench.undo(LIMIT))
    assert (e.code, str(e)) == ("wrong_state", f"{LIMIT} is 1000000: there is no change left to undo")


async def test_back_to_the_file_is_a_change_that_can_be_undone(bench: Bench) -> None:
    await bench.set(LIMIT, 500)
    assert (await bench.desk.set(LIMIT, {"file": True}))["value"] == 1_000_000
    assert (await bench.desk.set(LIMIT, {"file": True}))["changed"] is False
    assert (await bench.undo(LIMIT))["value"] == 500


async def test_the_same_value_again_changes_nothing(bench: Bench) -> None:
    await bench.set(LIMIT, 500)
    before = bench.kept()
    assert (await bench.set(LIMIT, 500))["changed"] is False
    assert bench.kept() == before
    assert len(bench.recorded("setting.changed")) == 1


@pytest.mark.parametrize(
    ("path", "arguments", "code"),
    [
        (LIMIT, {"value": 99}, "out_of_range"),
        (LIMIT, {"value": 100.5}, "bad_arguments"),
        (LIMIT, {"value": None}, "bad_arguments"),
        (LIMIT, {}, "bad_arguments"),
        (LIMIT, {"value": 500, "file": True}, "bad_arguments"),
        (LIMIT, {"file": False}, "bad_arguments"),
        (LIMIT, {"colour": "red"}, "bad_arguments"),
        (HOT, {"value": 61.0}, "out_of_range"),
        (MODE, {"value": "fast"}, "bad_arguments"),
        ("keys.eps_sec", {"value": 1e-8}, "file_only"),
        ("safety.tec_max_a", {"value": 1.9}, "conflict"),
        ("control.tec_current_limit_a", {"value": 2.6}, "conflict"),
        ("keys.spin", {"value": 1}, "unknown_setting"),
        ("control.phase_limit_deg", {"value": 5.0}, "unknown_setting"),
    ],
)
async def test_what_is_refused_leaves_no_trace(bench: Bench, path: str, arguments: dict[str, Any], code: str) -> None:
    before = (bench.kept(), bench.desk.in_force, bench.outbox.retained())
    e = await refusal(bench.desk.set(path, arguments))
    assert e.code == code
    assert (bench.kept(), bench.desk.in_force, bench.outbox.retained()) == before
    assert bench.told == []
    assert path in str(e)


async def test_a_limit_is_answered_as_numbers_too(bench: Bench) -> None:
    e = await refusal(bench.set(HOT, 61.0))
    assert e.limit is not None
    assert e.limit.model_dump() == {"output": HOT, "value": 61.0, "low": 30.0, "high": 60.0, "unit": "C"}
    assert str(e).endswith("nothing was changed")
    assert bench.recorded("setting.refused")[0]["code"] == "out_of_range"


async def test_a_value_that_waits_for_the_next_session(bench: Bench) -> None:
    answer = await bench.set(TARGET, 28.0)
    assert (answer["value"], answer["pending"], answer["applies"]) == (30.0, 28.0, "session")
    assert bench.told == []
    await bench.set(LIMIT, 500)
    assert bench.value(TARGET) == 30.0
    await bench.desk.begin_session()
    assert (bench.value(TARGET), bench.value(LIMIT)) == (28.0, 500)
    told = bench.retained()[TARGET]
    assert (told.value, told.pending) == (28.0, None)
    assert bench.recorded("setting.applied")[0]["setting"] == TARGET


async def test_undo_of_what_waits_leaves_nothing_waiting(bench: Bench) -> None:
    await bench.set(TARGET, 28.0)
    answer = await bench.undo(TARGET)
    assert (answer["value"], answer["pending"], answer["before"]) == (30.0, None, None)


async def test_a_value_that_waits_for_a_restart(bench: Bench) -> None:
    answer = await bench.set(RAMP, 0.2)
    assert (answer["value"], answer["pending"]) == (0.5, 0.2)
    await bench.desk.begin_session()
    assert bench.value(RAMP) == 0.5
    bench.start()
    assert bench.value(RAMP) == 0.2
    assert bench.retained()[RAMP].pending is None
    assert bench.recorded("setting.applied")[0] | {"seq": 0, "t": ""} == {
        **{"seq": 0, "t": "", "module": "QM-A-1"},
        **{"event": "setting.applied", "setting": RAMP, "value": 0.2},
    }


async def test_a_file_that_changed_under_an_override(bench: Bench) -> None:
    await bench.set(LIMIT, 500)
    bench.sections["keys"] = {"store_limit": 2000}
    bench.start()
    told = bench.retained()[LIMIT]
    assert (told.value, told.origin, told.default, told.before) == (500, "set", 2000, 2000)
    assert told.note == "the file said 1000000 when this was set, and says 2000 now"
    assert (await bench.undo(LIMIT))["value"] == 2000


async def test_a_file_that_became_safer_than_what_was_set(bench: Bench) -> None:
    await bench.set(HOT, 55.0)
    bench.sections["safety"] = {"submount_max_c": 50.0}
    bench.start()
    assert bench.value(HOT) == 50.0
    assert bench.recorded("setting.ignored")[0]["setting"] == HOT
    assert bench.retained()[HOT].origin == "file"
    await bench.set(HOT, 45.0)
    e = await refusal(bench.undo(HOT))
    assert e.code == "conflict"
    assert bench.value(HOT) == 45.0


async def test_undo_does_not_pull_the_ground_from_under_another_setting(bench: Bench) -> None:
    await bench.set("control.tec_current_limit_a", 1.5)
    await bench.desk.begin_session()
    await bench.set("safety.tec_max_a", 1.8)
    e = await refusal(bench.undo("control.tec_current_limit_a"))
    assert e.code == "conflict"
    assert "safety.tec_max_a, which was set, would not go with it" in str(e)
    await bench.undo("safety.tec_max_a")
    assert (await bench.undo("control.tec_current_limit_a"))["pending"] == 2.0


async def test_a_limit_below_what_is_still_in_force_is_refused(bench: Bench) -> None:
    """Lower current limit is only waiting: the loop may still drive what the old one allows."""
    await bench.set("control.tec_current_limit_a", 1.0)
    assert (await refusal(bench.set("safety.tec_max_a", 1.5))).code == "conflict"
    await bench.desk.begin_session()
    assert (await bench.set("safety.tec_max_a", 1.5))["value"] == 1.5


async def test_a_disk_that_does_not_take_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = bench.outbox.retained()
    monkeypatch.setattr(setting_desk, "write_whole", full)
    e = await refusal(bench.set(LIMIT, 500))
    assert (e.code, "No space left" in str(e)) == ("not_stored", True)
    assert (bench.value(LIMIT), bench.outbox.retained()) == (1_000_000, before)
    assert bench.recorded("setting.changed") == []


@pytest.mark.parametrize("text", ["", "{", '{"settings": {"keys.store_limit": {"now": 1}}}', "\udcff"])
def test_a_damaged_file_is_kept_aside_and_the_configuration_is_in_force(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogateescape"))
    bench = Bench(tmp_path)
    assert bench.desk.in_force == bench.file
    assert (tmp_path / "settings.damaged").exists()
    assert not (tmp_path / FILE).exists()
    assert len(bench.recorded("setting.file_damaged")) == 1
    bench.start()
    assert len(bench.recorded("setting.file_damaged")) == 1
    bench.close()


async def test_settings_of_a_later_version_are_kept_for_it(bench: Bench) -> None:
    await bench.set(LIMIT, 500)
    raw = json.loads(bench.kept())
    raw["settings"]["keys.spin"] = raw["settings"][LIMIT]
    (bench.directory / FILE).write_text(json.dumps(raw))
    bench.outbox.put("settings/keys.spin", b"{}", retain=True, kind="state")
    bench.start()
    assert "keys.spin" not in bench.retained()
    await bench.set(LIMIT, 600)
    assert "keys.spin" in json.loads(bench.kept())["settings"]


async def test_two_at_once_are_one_after_the_other(bench: Bench) -> None:
    await asyncio.gather(*(bench.set(LIMIT, 500 + n) for n in range(8)))
    values = [e["value"] for e in bench.recorded("setting.changed")]
    assert sorted(values) == list(range(500, 508))
    assert bench.value(LIMIT) == values[-1]
    assert [e["before"] for e in bench.recorded("setting.changed")] == [1_000_000, *values[:-1]]


def test_who_may_is_told_to_requests(bench: Bench) -> None:
    roles = bench.desk.roles()
    assert set(roles) == set(bench.desk.handlers())
    assert roles[f"set/{HOT}"] == {"maintainer"}
    assert roles[f"set/{LIMIT}"] == {"operator", "maintainer"}
