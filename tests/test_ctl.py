"""The operator's command line; its traffic is tested in tests/uplink/test_mqtt.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qmodd import ctl
from qmodd.clock import SystemClock
from qmodd.ctl import Ctl, CtlError, Views, make_request, parse_arguments
from qmodd.ctl_view import in_order, status_view
from qmodd.identity import ClientFiles
from qmodd.messages import Progress, Reply, ReplyError
from qmodd.randomness import SeededRandomness
from qmodd.uplink.mqtt_link import Link
from tests.uplink_fakes import ALIVE, CLIENT, EPOCH, MODULE, certificate

ID = "00000000-0000-4000-8000-000000000000"
STATE = {n: {"value": "enabled", "why": "in order"} for n in ("administrative", "operational", "activity")}


def test_arguments_are_json_where_they_can_be() -> None:
    assert parse_arguments(["force=true", "target=phase", "n=3", "t=a=b"]) == {
        "force": True,
        "target": "phase",
        "n": 3,
        "t": "a=b",
    }
    for wrong in ("x", "=1"):
        with pytest.raises(CtlError, match="not KEY=VALUE"):
            parse_arguments([wrong])


def test_an_argument_that_does_not_fit_is_named() -> None:
    client = ClientFiles(CLIENT, certificate())
    with pytest.raises(CtlError, match="arguments"):
        make_request(client, MODULE, EPOCH, "stop", {"a b": 1}, SystemClock(), SeededRandomness(1))


def test_a_view_is_what_was_said_last() -> None:
    views = Views()
    assert views.take("other/topic", b"{}") is None
    for suffix, payload in (
        ("alive", ALIVE.payload()),
        ("state", json.dumps({**STATE, "inhibited": [{"output": "laser", "why": "interlock"}]}).encode()),
        ("alarm/los", b"{}"),
        ("alarm/ais", b"{}"),
        ("alarm/ais", b""),
        ("telemetry/thermal", b'{"die_c": 30.0}'),
    ):
        assert views.take(f"qmodd/v1/{MODULE}/{suffix}", payload) == MODULE
    summary = views.modules[MODULE].summary()
    assert (summary["alive"], summary["operational_why"], summary["alarms"]) == ("online", "in order", ["los"])
    assert summary["telemetry"] == {"thermal": {"die_c": 30.0}}


class Answers:
    """Stands in for the traffic of the commands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.modules: list[dict[str, Any]] = []
        self.reply = Reply(id=ID, ok=True, result={"activity": "safe"})
        monkeypatch.setattr(Ctl, "status", self.status)
        monkeypatch.setattr(Ctl, "watch", self.watch)
        monkeypatch.setattr(Ctl, "do", self.do)

    async def status(self, module: str | None) -> list[dict[str, Any]]:
        return self.modules

    async def watch(self, modules: Sequence[str], wanted: Sequence[str], heard: Callable[[str, bytes], None]) -> None:
        assert {"alive", "state", "telemetry/+"} <= set(wanted)
        for suffix, payload in (("alive", ALIVE.payload()), ("telemetry/thermal", b'{"die_c": 30.0, "seq": 1}')):
            heard(f"qmodd/v1/{MODULE}/{suffix}", payload)

    async def do(self, client: Any, module: str, command: str, arguments: dict[str, Any]) -> Reply:
        return self.reply


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


@pytest.fixture
def identity(tmp_path: Path) -> str:
    return str(ClientFiles(CLIENT, certificate()).save(tmp_path / "ann"))


def test_status_says_whether_all_is_in_order(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["status"]) == 1
    views = Views()
    views.take(f"qmodd/v1/{MODULE}/alive", ALIVE.payload())
    views.take(f"qmodd/v1/{MODULE}/state", json.dumps(STATE).encode())
    answers.modules = [views.modules[MODULE].summary()]
    assert ctl.main(["status"]) == 0
    assert MODULE in capsys.readouterr().out
    answers.modules[0]["inhibited"] = [{"output": "laser", "why": "interlock open"}]
    answers.modules[0]["alarms"] = ["los"]
    assert ctl.main(["status", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["modules"][0]["alarms"] == ["los"]
    assert ctl.main(["status"]) == 1
    assert "laser" in capsys.readouterr().out


def test_watch_prints_changes(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["watch"]) == 0
    assert MODULE in capsys.readouterr().out
    assert ctl.main(["watch", "--json", MODULE]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["telemetry"]["thermal"]["die_c"] == 30.0


def test_do_shows_the_answer(answers: Answers, identity: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["do", "--identity", identity, MODULE, "stop", "gently=true"]
    assert ctl.main(arguments) == 0
    assert "safe" in capsys.readouterr().out
    answers.reply = Reply(id=ID, ok=False, error=ReplyError(code="wrong_state", message="it is [locked]"))
    assert ctl.main(arguments) == 1
    assert capsys.readouterr().out == "refused (wrong_state): it is [locked]\n"
    assert ctl.main([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "wrong_state"


def test_wrong_usage_and_an_unreachable_broker_have_their_exit_status(
    identity: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("QMODD_IDENTITY", raising=False)
    nobody = ["--broker", "mqtt://127.0.0.1:1"]
    assert ctl.main(["status", *nobody]) == 3
    assert ctl.main(["sign", *nobody, "--identity", identity, MODULE, "stop"]) == 3
    assert ctl.main(["do", MODULE, "stop"]) == 2
    assert ctl.main(["do", "--identity", "/nowhere", MODULE, "stop"]) == 2
    assert ctl.main(["status", "--broker", "http://x"]) == 2
    said = capsys.readouterr().err
    for words in ("no connection to mqtt://127.0.0.1:1", "--identity DIR", "client.key", "pattern"):
        assert words in said


def test_ctrl_c_ends_watching_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Ctl, "watch", interrupted)
    assert ctl.main(["watch"]) == 0


def test_sign_prints_a_request(
    identity: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def link(self: Ctl) -> AsyncIterator[Link | None]:
        yield None

    async def epoch(self: Ctl, link: Link, module: str) -> str:
        await asyncio.sleep(0)
        return EPOCH

    monkeypatch.setattr(Ctl, "_link", link)
    monkeypatch.setattr(Ctl, "epoch", epoch)
    assert ctl.main(["sign", "--identity", identity, MODULE, "calibrate", "force=true"]) == 0
    request = json.loads(capsys.readouterr().out)
    assert json.loads(request["body"])["arguments"] == {"force": True}


def test_progress_goes_to_stderr(
    answers: Answers, identity: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def do(self: Ctl, *_: object) -> Reply:
        self.progress(Progress(id=ID, progress=0.25, text="heater 1 of 4"))
        return answers.reply

    monkeypatch.setattr(Ctl, "do", do)
    assert ctl.main(["do", "--identity", identity, MODULE, "calibrate", "--json"]) == 0
    out = capsys.readouterr()
    assert out.err.strip() == "25% heater 1 of 4"
    assert json.loads(out.out)["ok"]


def test_the_table_says_why_once_for_all_outputs_and_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    modules = [
        {
            "module": "QM-B-0001",
            "alive": "online",
            "administrative": "locked",
            "administrative_why": "fibre work",
            "operational": "disabled",
            "operational_why": "locked: fibre work",
            "activity": "safe",
            "activity_why": "locked: fibre work",
            "inhibited": [{"output": o, "why": "locked: fibre work"} for o in ("heater_dac", "detectors")],
            "alarms": ["los"],
            "telemetry": {"keys": {"qber_z": 0.0054, "secret_rate_bps": 123456.7}, "phase": {"error_deg": -1.25}},
        }
    ]
    Console(width=80).print(status_view(modules))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["QM-B-0001", "online", "safe", "locked", "0.54%", "-", "123,457", "b/s", "-1.2°"]
    assert lines[2:] == [
        "QM-B-0001: locked: fibre work",
        "QM-B-0001: heater_dac, detectors held off: locked: fibre work",
        "QM-B-0001: alarms los",
    ]
    assert not in_order(modules[0])
