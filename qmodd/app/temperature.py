"""The temperature loop of a module, composed: limits from the configuration, gains from the record of its plant."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.procedures.tec_plant import TecPlantIdentification
from calibration.tec_experiment import Identified
from qmodd.app.wiring import Wiring
from qmodd.control.feed_forward import NOMINAL_W_PER_A, Tuning
from qmodd.control.thermal import TecLoop, ThermalConfig
from qmodd.module import Module

PERIOD_S = 0.5


def tec_loop(wiring: Wiring, module: Module, context: CalibrationContext) -> TecLoop:
    """With the gains of a valid `tec_plant` record; without one the loop identifies its plant on the way to the set
    point and the record is stored here. `context` gets the way to redo it by command."""
    control, procedure = wiring.config.control, TecPlantIdentification()

    async def store(found: Identified) -> None:
        context.store.append(await procedure.record_of(replace(context, operator="automatic"), found))

    loop = TecLoop(
        module.tec,
        ThermalConfig(
            target_c=control.tec_target_c,
            kp_a_per_k=control.tec_kp_a_per_k,
            ti_s=control.tec_ti_s,
            current_limit_a=control.tec_current_limit_a,
            ramp_c_per_s=wiring.config.safety.tec_ramp_c_per_s,
            period_s=PERIOD_S,
        ),
        wiring.clock,
        lambda: heater_sum_w(context),
        sleep=asyncio.sleep,
        tuning=known_tuning(context, control.tec_current_limit_a),
        identified=store,
    )
    context.identify_tec = loop.identify
    return loop


def heater_sum_w(context: CalibrationContext) -> float | None:
    """Power of all heaters at their present currents, W; None before their resistances are known."""
    try:
        return context.drive.total()
    except CalibrationRefused:
        return None


def known_tuning(context: CalibrationContext, limit_a: float) -> Tuning | None:
    """From the active record, while that is valid; None: identify the plant."""
    record = context.store.active("tec_plant")
    if record is None or context.store.invalid_reason("tec_plant") is not None:
        return None
    until = context.store.valid_until("tec_plant")
    if until is None or context.clock.utc() >= until:
        return None
    v = record.value
    return Tuning(v["kp_a_per_k"], v["ti_s"], min(v["clamp_a"], limit_a), v.get("pumped_w_per_a", NOMINAL_W_PER_A))
