from __future__ import annotations

import math
from pathlib import Path

import pytest

from sim.scenario import Scenario, ScenarioError


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_the_demo_pair() -> None:
    s = Scenario()
    assert (s.link.loss_db, s.symbol_period_ps, s.link.km) == (10.0, 8000, 50.0)
    assert len(s.faults()) == 0


def test_from_toml(tmp_path: Path) -> None:
    text = """
seed = 7
symbol_period_ps = 16000
[link]
loss_db = 20
length_km = 80
[detection]
darks_hz = [10, 20, 30]
clock_offset_ppm = 1.5
[drifts]
phase = 0
[[fault]]
at = 10
for = 5
on = "alice.heater.2"
what = "open"
[[fault]]
at = 20
on = "fibre"
what = "bend"
value = 2.5
"""
    s = Scenario.from_toml(_write(tmp_path / "pair.toml", text))
    assert (s.seed, s.link.km, s.drifts.phase, s.drifts.bias) == (7, 80.0, 0.0, 1.0)
    faults = s.faults()
    assert faults.active("open", "alice.heater.2", 12.0)
    assert not faults.active("open", "alice.heater.2", 15.0)
    bend = faults.active("bend", "fibre", 1e9)
    assert bend is not None
    assert bend.value == 2.5
    assert math.isinf(bend.duration)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[link]\nloss_db = -1", "link.loss_db"),
        ("[link]\nlos_db = 1", "link.los_db"),
        ("[detection]\ndarks_hz = [1, 2]", "detection.darks_hz"),
        ("[detection]\ndarks_hz = [1, 2, -3]", "detection"),
        ("[drifts]\nphase = -1", "drifts.phase"),
        ("seed = -1", "seed"),
        ('[[fault]]\nat = 1\non = "fibre"', "fault.0.what"),
        ("symbol_period_ps = 1000", "symbol_period_ps"),
    ],
)
def test_errors_name_file_and_field(tmp_path: Path, text: str, field: str) -> None:
    path = _write(tmp_path / "bad.toml", text)
    with pytest.raises(ScenarioError) as caught:
        Scenario.from_toml(path)
    assert f"{path}: {field}" in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.toml: cannot be read"):
        Scenario.from_toml(tmp_path / "none.toml")
    with pytest.raises(ScenarioError, match="not TOML"):
        Scenario.from_toml(_write(tmp_path / "bad.toml", "seed = "))
