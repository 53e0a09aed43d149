"""Each benchmark on little data: it measures, and code and reference agree (else it raises Mismatch)."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable

import pytest

from benchmarks import __main__ as program
from benchmarks import acceptance, amplification, bus, clicks, ldpc, sifting
from benchmarks.measure import Mismatch, Result, best_of, must_agree

SLOTS = 2_000_000
SMALL: dict[str, Callable[[], list[Result]]] = {
    "acceptance": lambda: acceptance.run(SLOTS, times=1),
    "sifting": lambda: sifting.run(SLOTS, times=1),
    "ldpc": lambda: ldpc.run(frames=1),
    "amplification": lambda: amplification.run(5000, 1200, times=1),
    "clicks": lambda: clicks.run(SLOTS, times=1),
    "bus": lambda: bus.run(reads=20, times=1),
}


# Against the emulator's truth or the clock, each with tests of its own.
LONG = {"scheduler", "calibration", "selftest", "swap", "lock", "safety", "keys", "mqtt", "hostile", "delivery"}


def test_all_are_here() -> None:
    assert set(SMALL) | LONG == set(program.NAMES)
    for name in LONG:
        assert callable(importlib.import_module(f"benchmarks.{name}").run)


@pytest.mark.parametrize("name", SMALL)
def test_measures_beside_a_reference(name: str) -> None:
    for result in SMALL[name]():
        assert result.value > 0
        assert result.reference is not None
        assert result.reference > 0
        assert result.ratio is not None
        assert result.name in program.line(result)
        assert json.loads(json.dumps(result.as_dict()))["unit"] == result.unit


def test_ratio_says_how_much_better() -> None:
    assert Result("speed", 4.0, "Mbit/s", 2.0, "other").ratio == 2.0
    assert Result("time", 4.0, "s", 2.0, "other", less_is_better=True).ratio == 0.5
    assert Result("alone", 4.0, "s", None, "").ratio is None


def test_best_of_leaves_the_first_run_out() -> None:
    calls: list[int] = []
    assert best_of(lambda: calls.append(1), times=3) >= 0.0
    assert len(calls) == 4


def test_a_mismatch_ends_with_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Mismatch, match="this: code and reference"):
        must_agree("this", False)
    monkeypatch.setattr(bus, "run", lambda: must_agree("bus", False))
    assert program.main(["bus"]) == 1
    assert "benchmarks: bus: code and reference give different results" in capsys.readouterr().err


def test_json_is_the_last_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bus, "run", lambda: [Result("x", 2.0, "s", 1.0, "y", detail={"n_count": 3.0})])
    assert program.main(["bus", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["results"][0]["detail"] == {"n_count": 3.0}
    assert {"machine", "python", "cpus_count", "seconds"} <= set(report)


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["warp"])
    assert ended.value.code == 2
    assert "no benchmark 'warp'" in capsys.readouterr().err
