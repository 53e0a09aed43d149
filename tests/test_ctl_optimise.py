"""`qmodctl optimise`: from what modules say of themselves to signed settings."""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from rich.console import Console

from qmodd import ctl_optimise
from qmodd.ctl_client import Session
from qmodd.ctl_errors import CtlError
from qmodd.ctl_optimise import Link, add_optimise_parser, fitted, run_optimise, system_of
from qmodd.messages import CalibrationRecord, Kpi, KpiBin, Reply, ReplyError
from qmodd.rate.model import rates

VALUES = {
    "source.mu_signal": 0.9,
    "source.decoy_ratio": 0.333,
    "source.p_decoy": 0.5,
    "source.p_x": 0.6,
    "keys.proof": "wiesemann2024",
    "keys.n_z": 983_040,
}
ID = "11111111-2222-3333-4444-555555555555"


def _settings() -> dict[str, bytes]:
    return {f"settings/{k}": json.dumps({"path": k, "value": v}).encode() for k, v in VALUES.items()}


def _path_loss(fibre_db: float) -> bytes:
    return CalibrationRecord(
        name="path_loss", version=1, value={"fibre_db": fibre_db}, taken=datetime(2026, 1, 1, tzinfo=UTC)
    ).payload()


@dataclass
class Modules:
    """Stands for the broker and the two modules behind it."""

    receiver: dict[str, bytes]
    refuse: str = ""
    asked: list[tuple[str, str, float]] = field(default_factory=list)

    async def retained(self, module: str, *suffixes: str) -> dict[str, dict[str, bytes]]:
        return {module: _settings() if suffixes[0] == "settings/#" else self.receiver}

    async def set(self, client: object, module: str, path: str, value: float) -> Reply:
        self.asked.append((module, path, value))
        if path.endswith(self.refuse or "nothing"):
            return Reply(id=ID, ok=False, error=ReplyError(code="not_allowed", message="not for an operator"))
        return Reply(id=ID, ok=True, result={})


class Signed(Session):
    def client(self) -> Any:
        return object()


def _session(modules: Modules, *arguments: str) -> Session:
    top, common = argparse.ArgumentParser(), argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true")
    add_optimise_parser(top.add_subparsers(), common)
    given = top.parse_args(["optimise", "QM-A-1", "QM-B-1", *arguments])
    out = Console(file=io.StringIO(), width=120)
    return Signed(cast(Any, modules), given, out, out)


async def test_proposed_and_set(capsys: pytest.CaptureFixture[str]) -> None:
    modules = Modules({"calibration/path_loss": _path_loss(10.0)})
    assert await run_optimise(_session(modules, "--apply", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["applied"] is True
    assert said["fibre_db"] == 10.0
    assert said["proposed_skr_bps"] > 1.2 * said["present_skr_bps"] > 0
    assert 0.25 <= said["proposed"]["mu_signal"] < 0.9
    wanted = {(m, p): v for m, p, v in modules.asked}
    assert wanted[("QM-A-1", "source.mu_signal")] == said["proposed"]["mu_signal"]
    assert wanted[("QM-A-1", "source.p_x")] < 0.6
    assert all(m == "QM-A-1" for m, _, _ in modules.asked)


async def test_proposed_and_not_set() -> None:
    modules = Modules({"calibration/path_loss": _path_loss(10.0)})
    s = _session(modules, "--keep", "mu_signal", "p_x")
    assert await run_optimise(s) == 0
    assert modules.asked == []
    text = cast(io.StringIO, s.out.file).getvalue()
    assert "--apply sets it" in text
    assert "source.p_x" not in text
    assert "source.mu_signal" not in text


async def test_a_refusal_is_told() -> None:
    modules = Modules({}, refuse="p_x")
    s = _session(modules, "--apply", "--loss-db", "12")
    assert await run_optimise(s) == 1
    assert "not for an operator" in cast(io.StringIO, s.out.file).getvalue()


@pytest.mark.parametrize("record", [None, b"{}", _path_loss(3.0).replace(b"fibre_db", b"fabre_db")])
async def test_a_loss_that_nobody_measured(record: bytes | None) -> None:
    modules = Modules({} if record is None else {"calibration/path_loss": record})
    with pytest.raises(CtlError, match="--loss-db"):
        await run_optimise(_session(modules))


async def test_a_loss_that_cannot_be() -> None:
    with pytest.raises(CtlError, match="0 to 200 dB"):
        await run_optimise(_session(Modules({}), "--loss-db", "-3"))


def test_a_module_that_tells_no_source() -> None:
    with pytest.raises(CtlError, match=r"source\.mu_signal"):
        system_of({"settings/keys.n_z": b'{"value": 5}', "settings/odd": b"?"})
    with pytest.raises(CtlError, match="do not fit"):
        system_of(_settings() | {"settings/source.mu_signal": b'{"value": 99.0}'})


def test_errors_are_fitted_to_what_was_measured() -> None:
    system = fitted(system_of(_settings()), Link(10.0, 0.012, 0.031))
    r = rates(system, 10.0)
    assert r.qber_z == pytest.approx(0.012, rel=0.02)
    assert r.qber_x == pytest.approx(0.031, rel=0.02)
    plain = replace(Link(10.0))
    assert fitted(system_of(_settings()), plain).source.error_z == system_of(_settings()).source.error_z


def test_errors_of_the_newest_bin() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    bins = [
        KpiBin(start=now, qber_z=0.01, qber_x=0.02),
        KpiBin(start=now, qber_z=0.012, qber_x=0.03),
        KpiBin(start=now),
    ]
    kpi = Kpi(module="QM-B-1", until=now, last_24h=KpiBin(start=now), bins_15min=bins)
    assert ctl_optimise._errors(kpi.payload()) == (0.012, 0.03)
    assert ctl_optimise._errors(kpi.model_copy(update={"bins_15min": []}).payload()) == (None, None)
    assert ctl_optimise._errors(None) == (None, None)
    assert ctl_optimise._errors(b"not json") == (None, None)
