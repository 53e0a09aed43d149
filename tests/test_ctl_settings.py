"""`qmodctl get, set, undo`: what is shown, what is asked, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qmodd import ctl
from qmodd.ctl import Ctl
from qmodd.ctl_errors import CtlError
from qmodd.ctl_settings import choose, parse_value, settings_in
from qmodd.identity import ClientFiles
from qmodd.messages import Reply, ReplyError, Setting
from qmodd.settings.overrides import Kept, Override
from qmodd.settings.tell import message
from qmodd.settings.tree import tree, value_of
from tests.settings.files import config
from tests.uplink_fakes import CLIENT, MODULE, certificate

ID = "00000000-0000-4000-8000-000000000000"
LIMIT, TARGET, HOT = "keys.store_limit", "control.tec_target_c", "safety.submount_max_c"


def setting(path: str, pending: Any = None, kept: Kept | None = None, value: Any = None) -> Setting:
    file = value_of(config(Path("/x")), path)
    return message(tree("alice")[path], file, file if value is None else value, pending, kept or Kept(), "")


def everything() -> dict[str, Setting]:
    return {path: setting(path) for path in tree("alice")}


class Module:
    """Stands in for the traffic with one module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said = everything()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.reply = Reply(id=ID, ok=True, result={})
        monkeypatch.setattr(Ctl, "retained", self.retained)
        monkeypatch.setattr(Ctl, "do", self.do)

    async def retained(self, module: str | None, *suffixes: str) -> dict[str, dict[str, bytes]]:
        assert suffixes == ("settings/#",)
        return {MODULE: {f"settings/{path}": one.payload() for path, one in self.said.items()}} if self.said else {}

    async def do(self, client: Any, module: str, command: str, arguments: dict[str, Any]) -> Reply:
        assert module == MODULE
        self.asked.append((command, arguments))
        return self.reply

    def answers(self, one: Setting, changed: bool = True) -> None:
        self.reply = Reply(id=ID, ok=True, result={**one.model_dump(mode="json"), "changed": changed})


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    return Module(monkeypatch)


@pytest.fixture
def identity(tmp_path: Path) -> str:
    return str(ClientFiles(CLIENT, certificate()).save(tmp_path / "ann"))


def test_get_shows_all_a_section_or_one(module: Module, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["get", MODULE]) == 0
    out = capsys.readouterr().out
    assert all(path in out for path in tree("alice"))
    assert ctl.main(["get", MODULE, "safety"]) == 0
    out = capsys.readouterr().out
    assert HOT in out
    assert LIMIT not in out
    assert ctl.main(["get", MODULE, HOT]) == 0
    out = capsys.readouterr().out
    assert f"{HOT} = 60 C" in out
    assert "30 to 60 C; by maintainer; a change counts at once" in out
    assert "only lower than the file's value" in out


def test_get_of_one_that_was_set_and_waits(module: Module, capsys: pytest.CaptureFixture[str]) -> None:
    kept = Kept(Override(28.0, "ann", "2026-01-02T03:04:05.678+00:00", 30.0), (None,))
    module.said[TARGET] = setting(TARGET, 28.0, kept)
    assert ctl.main(["get", MODULE, TARGET]) == 0
    out = capsys.readouterr().out
    for part in (
        "= 30 C",
        "waits: 28 C, when the module next comes up",
        "set by ann at 2026-01-02",
        "undo returns to 30",
    ):
        assert part in out
    assert ctl.main(["get", MODULE, "--changed"]) == 0
    out = capsys.readouterr().out
    assert "30 C (28 waits)" in out
    assert LIMIT not in out


def test_get_as_json(module: Module, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["get", MODULE, LIMIT, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["settings"]
    assert (one["value"], one["low"], one["origin"]) == (1_000_000, 100, "file")
    assert ctl.main(["get", MODULE, "--changed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"settings": []}


def test_get_of_what_is_not_there(module: Module, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["get", MODULE, "keys.storelimit"]) == 2
    assert "did you mean keys.store_limit" in capsys.readouterr().err
    assert ctl.main(["get", MODULE, "store_limit"]) == 2
    assert "keys.store_limit" in capsys.readouterr().err
    with pytest.raises(CtlError, match="sections are alarms, control"):
        choose(everything(), "xyzzy")
    module.said = {}
    assert ctl.main(["get", MODULE]) == 3


def test_settings_of_another_version_are_left_out() -> None:
    good = setting(LIMIT).payload()
    assert settings_in({f"settings/{LIMIT}": good, "settings/keys.x": b"{}", "settings/keys.y": good}) == {
        LIMIT: setting(LIMIT)
    }


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5), ("5.5", 5.5), ("true", True), ("throughput", "throughput"), ("-1", -1)]
)
def test_a_value_is_json_where_it_can_be(text: str, value: Any) -> None:
    assert parse_value(text) == value


def test_set_asks_and_shows_what_is_then(module: Module, identity: str, capsys: pytest.CaptureFixture[str]) -> None:
    kept = Kept(Override(500, "ann", "2026-01-02T03:04:05", 1_000_000), (None,))
    module.answers(setting(LIMIT, None, kept, 500))
    assert ctl.main(["set", MODULE, LIMIT, "500", "--identity", identity]) == 0
    assert module.asked == [(f"set/{LIMIT}", {"value": 500})]
    assert "keys.store_limit = 500" in capsys.readouterr().out
    module.answers(setting(LIMIT, None, kept, 500), changed=False)
    assert ctl.main(["set", MODULE, LIMIT, "500", "--identity", identity]) == 0
    assert capsys.readouterr().out.startswith("nothing to change")
    assert ctl.main(["set", MODULE, LIMIT, "--file", "--identity", identity, "--json"]) == 0
    assert module.asked[-1] == (f"set/{LIMIT}", {"file": True})
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_undo_asks(module: Module, identity: str) -> None:
    module.answers(setting(LIMIT))
    assert ctl.main(["undo", MODULE, LIMIT, "--identity", identity]) == 0
    assert module.asked == [("undo", {"setting": LIMIT})]


def test_a_refusal_is_status_1_with_its_reason(
    module: Module, identity: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module.reply = Reply(id=ID, ok=False, error=ReplyError(code="out_of_range", message="99: 100 is the least"))
    assert ctl.main(["set", MODULE, LIMIT, "99", "--identity", identity]) == 1
    assert "refused (out_of_range): 99: 100 is the least" in capsys.readouterr().err
    assert ctl.main(["set", MODULE, LIMIT, "99", "--identity", identity, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "out_of_range"


def test_set_wants_a_value_or_the_file_s(module: Module, identity: str) -> None:
    assert ctl.main(["set", MODULE, LIMIT, "--identity", identity]) == 2
    assert ctl.main(["set", MODULE, LIMIT, "5", "--file", "--identity", identity]) == 2
    assert module.asked == []
