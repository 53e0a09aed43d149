"""`qmodd bench`: results as they come, limits that are kept or not, and a clear word where there are no benchmarks."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks.measure import Mismatch, Progress, Result, must_agree
from qmodd import bench_cli, cli


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A benchmark that tells how far it is: one result that keeps its limit, one that does not."""
    module = ModuleType("benchmarks.weights")

    def run(progress: Progress) -> Iterator[Result]:
        progress(0.5, "half")
        yield Result("light", 1.0, "kg", 2.0, "other", less_is_better=True, limit=2.0)
        progress(1.0, "done")
        yield Result("heavy", 3.0, "kg", None, "", less_is_better=True, limit=2.0)

    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.weights", module)
    monkeypatch.setattr(program, "NAMES", ("weights",))
    return module


def test_limits_and_exit_status(weights: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--json"]) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out.splitlines()[-1])
    light, heavy = report["results"]
    assert (light["name"], light["value"], light["unit"], light["limit"], light["ok"]) == (
        "light",
        1.0,
        "kg",
        2.0,
        True,
    )
    assert (light["reference"], light["ratio"]) == (2.0, 2.0)
    assert (heavy["ok"], heavy["reference"], heavy["ratio"]) == (False, None, None)
    assert "ok: at most 2" in captured.err
    assert "NOT OK: at most 2" in captured.err


def test_the_module_does_the_same(weights: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["weights"]) == 1
    assert "NOT OK" in capsys.readouterr().err


def test_a_bar_on_a_terminal(weights: ModuleType) -> None:
    out = io.StringIO()
    status = bench_cli.run(program, ["weights"], False, Console(file=out, force_terminal=True, width=120))
    assert status == 1
    assert "heavy" in out.getvalue()
    with bench_cli.Screen(Console(file=out, force_terminal=True)) as screen:
        screen.progress("one")(0.5, "half")
        screen.progress("two")(0.1, "begun")
        assert [t.description for t in screen._progress.tasks] == ["two"]


def test_wrong_name(weights: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "nose"]) == 2
    assert capsys.readouterr().err == "qmodd bench: no benchmark 'nose'; there are weights\n"


def test_a_mismatch_is_told(
    weights: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "run", lambda: must_agree("this", False))
    assert cli.main(["bench"]) == 1
    assert "qmodd bench: this: code and reference give different results" in capsys.readouterr().err
    assert issubclass(Mismatch, Exception)


def test_without_the_source_tree(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert bench_cli.command(argparse.Namespace(names=[], json=False)) == 2
    assert capsys.readouterr().err == bench_cli.MISSING + "\n"


def test_what_a_benchmark_lacks_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(name="numba")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        bench_cli._program()


@pytest.mark.parametrize(
    ("value", "limit", "less", "ok", "text"),
    [
        (1.0, (0.8, 1.25), False, True, "0.8 to 1.25"),
        (1.3, (0.8, 1.25), False, False, "0.8 to 1.25"),
        (float("nan"), 2.0, True, False, "at most 2"),
        (2.0, 2.0, False, True, "at least 2"),
        (2.0, None, False, True, ""),
    ],
)
def test_what_a_limit_is(
    value: float, limit: float | tuple[float, float] | None, less: bool, ok: bool, text: str
) -> None:
    result = Result("r", value, "1", None, "", less_is_better=less, limit=limit)
    assert result.ok is ok
    assert program.limit(result) == text
    shown = json.loads(json.dumps(result.as_dict()))
    assert shown["ok"] is ok
    assert shown["limit"] == (list(limit) if isinstance(limit, tuple) else limit)
