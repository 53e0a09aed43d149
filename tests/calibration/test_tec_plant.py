"""The procedure around the identification: its record, by itself and through a temperature loop, and its figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import FitRefused
from calibration.plot import Plot
from calibration.procedures.tec_plant import TecPlantIdentification
from calibration.tec_experiment import Identified
from tests.calibration.fakes import FakeAlice
from tests.control.plant import PlantTec


async def regulating(**plant: object) -> tuple[PlantTec, CalibrationContext]:
    tec = PlantTec(30.0, sink_c=27.0, **plant)  # type: ignore[arg-type]
    await tec.set_gains(1.9, 4.4)
    await tec.set_target(30.0)
    await tec.enable(True)
    await tec.sleep(60.0)
    return tec, replace(FakeAlice().context(), tec=tec, clock=tec, sleep=tec.sleep)


async def test_alone_it_is_a_relay_about_the_set_point() -> None:
    tec, context = await regulating()
    begin = tec.time.now
    procedure = TecPlantIdentification()
    record = context.store.append(await procedure.calibrate(context))
    assert tec.time.now - begin < 20.0
    assert tec.plant.static_a is None
    v = record.value
    assert v["slope_k_per_a_s"] == pytest.approx(0.5, rel=0.06)
    assert v["dead_s"] + v["lag_s"] == pytest.approx(0.6, abs=0.08)
    assert v["kp_a_per_k"] == pytest.approx(1 / (2 * v["slope_k_per_a_s"] * (v["dead_s"] + v["lag_s"])))
    assert v["clamp_a"] == 2.0
    assert v["optimum_a"] == pytest.approx(0.0133 * 303.15 / 1.03, rel=0.05)
    assert v["pumped_w_per_a"] == pytest.approx(4.0, rel=0.06)
    assert 0.0 < record.sigma("slope_k_per_a_s") < 0.05
    assert record.valid_until - record.created == pytest.approx(30 * 86_400, abs=1) or (
        (record.valid_until - record.created).days == 30
    )
    raw = context.raw.get(record.raw_sha256)
    assert raw is not None
    assert len(record.residuals) == len(raw["t_s"])
    thermistor, current = procedure.figures(record, raw)
    assert isinstance(thermistor, Plot)
    assert isinstance(current, Plot)
    assert len(thermistor.series) == 2
    assert len(thermistor.marks) == len(raw["driven_a"])
    model = np.asarray(thermistor.series[1].y)
    assert np.abs(model - raw["object_c"]).max() < 0.03
    assert set(np.round(current.series[0].y, 6)) == set(np.round(raw["driven_a"], 6))


async def test_a_reversed_element_is_refused_and_turned_off() -> None:
    tec, context = await regulating()
    tec.plant.set_wiring(type(tec.plant._wiring)(reversed=True))
    with pytest.raises(CalibrationRefused, match=r"tec_plant: CHECK POLARITY"):
        await TecPlantIdentification().calibrate(context)
    assert not tec.plant.enabled
    assert context.store.active("tec_plant") is None


async def test_beside_a_temperature_loop_it_asks_the_loop() -> None:
    tec, context = await regulating()
    asked = []

    async def identify() -> Identified:
        asked.append(tec.time.now)
        raise FitRefused("no limit cycle")

    with pytest.raises(CalibrationRefused, match="tec_plant: no limit cycle"):
        await TecPlantIdentification().calibrate(replace(context, identify_tec=identify))
    assert len(asked) == 1
    assert tec.plant.static_a is None
