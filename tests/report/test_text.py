"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.report.text import PREFIXES, quantity, scaled, seconds, title


@pytest.mark.parametrize(
    ("value", "sigma", "unit", "shown"),
    [
        (0.0312345, 1.23e-5, "W", ("31.234", "0.012", "mW")),
        (91.234567, 0.02, "ohm", ("91.235", "0.020", "Ω")),
        (1.934145e14, 1e6, "Hz", ("193.4145000", "0.0000010", "THz")),
        (0.0, 0.0, "V", ("0", "", "V")),
        (-3.2e-9, 0.0, "A", ("-3.2", "", "nA")),
        (0.26, 0.0013, "1", ("0.2600", "0.0013", "")),
        (0.5236, 0.01, "rad", ("524", "10", "mrad")),
        (12.5, 0.1, "rad", ("12.50", "0.10", "rad")),
        (30.01234, 0.0, "C", ("30.0123", "", "°C")),
        (13.0, 0.01, "dBm", ("13.000", "0.010", "dBm")),
        (1.0, 1e-13, "ps", ("1", "1.0e-13", "ps")),
        (math.inf, 0.0, "W", ("inf", "", "W")),
        (123456.0, 1500.0, "1/s", ("123.5", "1.5", "k1/s")),
    ],
)
def test_quantity(value: float, sigma: float, unit: str, shown: tuple[str, str, str]) -> None:
    assert quantity(value, sigma, unit) == shown


@given(st.floats(-1e15, 1e15, allow_nan=False).filter(lambda x: abs(x) > 1e-14))
def test_scaled_is_the_same_value(value: float) -> None:
    factor, unit = scaled(value, "W")
    exponent = next(e for e, p in PREFIXES.items() if p + "W" == unit)
    assert value * factor * 10.0**exponent == pytest.approx(value)


@pytest.mark.parametrize(
    ("value", "shown"), [(45.0, "45 s"), (1800.0, "30 min"), (43_200.0, "12 h"), (604_800.0, "7 days")]
)
def test_seconds(value: float, shown: str) -> None:
    assert seconds(value) == shown


def test_title() -> None:
    assert [title(n) for n in ("heater_iv", "amzi_phase", "tec_plant", "laser")] == [
        "Heater I-V",
        "AMZI phase",
        "TEC plant",
        "Laser",
    ]
