"""Reference pages from made-up reports; those of the documentation are compared in tests/docs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import pytest

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import FitRefused
from calibration.procedure import Disturbs, Procedure
from calibration.record import Record
from qmodd.report import pages as module
from qmodd.report.meanings import meaning, unknown
from qmodd.report.model import Report, Side
from qmodd.report.pages import pages, without_numbers, write
from qmodd.report.poster import poster
from qmodd.report.refusals import refusals
from tests.report.made_up import FRINGE, NOW, entry


class Weighing(Procedure):
    """Weighs the light.

    Names the scale that is empty | or broken.
    """

    name: ClassVar[str] = "heater_iv"
    needs: ClassVar[tuple[str, ...]] = ("photodiode_zero",)
    equation: ClassVar[str] = "m = E / c^2\nE = h f"
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    deferred: ClassVar[bool] = True
    renews: ClassVar[bool] = True

    async def calibrate(self, context: CalibrationContext) -> Record:
        grams = 5
        if grams > 3:
            raise FitRefused(f"scale {grams}: {grams:.1f} g; " + "5 g is the <limit>")
        raise CalibrationRefused(self.name, "empty")

    async def check(self, context: CalibrationContext, record: Record) -> str | None:
        """Weighs once more."""
        return None


class Plain(Weighing):
    name: ClassVar[str] = "photodiode_zero"
    needs: ClassVar[tuple[str, ...]] = ()
    check = Procedure.check


def made() -> tuple[dict[str, dict[str, Procedure]], Report]:
    entries = (entry("photodiode_zero", figures=(FRINGE,) * 6), entry(needs=("photodiode_zero",)))
    sides = (Side("alice", "A", entries), Side("bob", "B", entries[1:]))
    procedures: dict[str, dict[str, Procedure]] = {
        "alice": {"photodiode_zero": Plain(), "heater_iv": Weighing()},
        "bob": {"heater_iv": Weighing()},
    }
    return procedures, Report("made up", NOW, 1.0, sides)


def test_a_page_says_it_all() -> None:
    found = pages(*made())
    page = found["heater_iv.md"]
    for line in (
        "# Heater I-V",
        "Weighs the light.",
        "m = E / c^2",
        "| of | transmitter and receiver |",
        "| rests on | [Photodiode zero](photodiode_zero.md) |",
        "| disturbs | keys stop on both modules: it needs the transmitter's light |",
        "| made | later, in service: keys do not rest on it |",
        "Weighs once more.",
        "A passed check renews the record. The check disturbs nothing.",
        "- scale …: … g; 5 g is the \\<limit\\>",
        "- empty",
        "## Values of the receiver",
        "| `p_pi_w` | W | heater power for half a turn of the phase | 31.234 mW | ± 0.010 mW |",
        "![Crosstalk: a matrix](heater_iv-bob-1.svg)",
    ):
        assert line in page.splitlines() or line in page, line
    assert all(len(line) <= 120 for line in page.splitlines() if not line.startswith("|"))
    assert "Of its state only" in found["photodiode_zero.md"]


def test_pictures_are_files_of_their_own_and_not_too_many() -> None:
    found = pages(*made())
    assert sum(name.startswith("photodiode_zero-alice-") for name in found) == module.MOST_FIGURES
    for name, text in found.items():
        if name.endswith(".svg"):
            ElementTree.fromstring(text)
    assert {"alice.svg", "bob.svg", module.INDEX} <= set(found)
    assert "| [Heater I-V](heater_iv.md) | Weighs the light | 7 days | 1 s |" in found[module.INDEX]


def test_refusals_are_those_of_the_code() -> None:
    assert refusals(Weighing())[:2] == ["scale …: … g; 5 g is the <limit>", "empty"]


def test_numbers_may_differ() -> None:
    row = "| `p_pi_w` | W | power | {} mW | ± {} mW |"
    assert without_numbers(row.format(1, 2)) == without_numbers(row.format(3, 4))
    assert without_numbers("# a\n" + row.format(1, 2)) != without_numbers("# b\n" + row.format(1, 2))


def test_writing_leaves_nothing_of_before(tmp_path: Path) -> None:
    (tmp_path / "old.md").write_text("x")
    (tmp_path / "note.txt").write_text("x")
    write(tmp_path, {"new.md": "# New\n", "new.svg": "<svg/>"})
    assert {p.name for p in tmp_path.iterdir()} == {"new.md", "new.svg", "note.txt"}


def test_main_writes_pages_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "of_an_emulated_pair", made)
    assert module.main([str(tmp_path)]) == 0
    assert (tmp_path / "reference" / "calibration" / "heater_iv.md").exists()
    root = ElementTree.fromstring((tmp_path / module.PICTURE).read_text())
    assert root.tag.endswith("svg")


def test_the_picture_shows_graphs_and_figures() -> None:
    _, report = made()
    text = poster(report)
    ElementTree.fromstring(text)
    for word in ("Transmitter A", "Receiver B", "heater power (mW)", "Heater I-V"):
        assert word in text
    assert "var(" not in text


def test_meanings() -> None:
    assert meaning("heater_iv", "split_r0_ohm") == "resistance of heater split at zero power"
    assert meaning("mean_photon", "mu_z0_decoy") == "mean photon number of state z0, decoy"
    assert meaning("anything", "p_pi_w") == "heater power for half a turn of the phase"
    assert unknown("laser", ["power_dbm", "nose_w"]) == ["nose_w"]
