"""RF drives of the three modulators by mean power of pulses, and the attenuator by the photodiode behind it."""

from __future__ import annotations

from math import log10

import numpy as np

from calibration.plot import Plot, Series
from calibration.procedures.carver_bias import PULSE_PS
from calibration.procedures.light import shine
from drivers.roles import LightMode
from qmodd.selftest.alice_chain import MODULATORS, Chain, dark_mode
from qmodd.selftest.heater_checks import cables, cables_of
from qmodd.selftest.model import Finding, Limits, skipped

# Design's half-wave amplitude of every RF port, V; individuals differ by 5 % (three deviations: 15 %).
DRIVE_V = 4.0
CARVED = Limits(0.80, 1.10)
STATED = Limits(0.75, 1.15)
DECOYED = Limits(high=0.22)
# Below this there are no pulses, and nothing to be said of the modulators behind.
NO_PULSES = 0.3
# Attenuations by the factory's table, dB, at which it is read; less would need light that the carver cannot dim.
ATTENUATIONS_DB = (37.0, 33.0, 28.5, 24.0)
# Never more behind the attenuator than in service, where this photodiode has 2.4 nA; stop where it has twice that.
SERVICE_A, TOO_MUCH_A = 2.0e-9, 5.0e-9
# With attenuator and carver closed: what this photodiode may see at most with the shutter closed, and with it open.
DARK_A, CLOSED_A = 1.0e-10, 4.0e-10
OUTPUT_DB, PAD = 1.5, 1.0 - 10.0**-2.5
SHAPE_DB = Limits(high=0.5, warn_high=0.25)
# Coupler n(1.5, 0.1), the attenuator's ageing of 0.02 dB/sqrt(day) over years, taps of 1 %.
OFFSET_DB = Limits.around(0.0, 2.2, 1.2)
FOLLOW_S, LATER_S = 0.03, 0.4
LAG_DB = Limits(high=0.25)


async def drive_findings(chain: Chain) -> list[Finding]:
    """Carver, state and decoy modulator driven as in service, each against what its bias alone does.

    Every reading of pulses is taken with and without the carver's drive: what leaks between them drops out.
    """
    bench, source = chain.bench, chain.bench.context.need_source()
    duty = PULSE_PS / bench.context.settings.symbol_period_ps
    pa1 = chain.see["pa1"]
    for m in MODULATORS:
        await chain.element(m, chain.peak[m])
    full = (await chain.settled(64))[pa1]
    await chain.element("carver", chain.null["carver"])
    dark = (await chain.settled(64))[pa1]
    await source.set_rf(carver_v=DRIVE_V)
    lit = (await chain.settled(64))[pa1]
    carved = (lit - dark) / max(full * duty, 1e-15)
    if carved < NO_PULSES:
        await dark_mode(bench)
        await chain.element("carver", chain.peak["carver"])
        return _drives(chain, carved, None)
    # Undriven at its peak the state modulator passes both pulses; at its null, driven, one or the other.
    both = await _pulses(chain, 0, 0)
    await chain.element("state", chain.null["state"])
    await source.set_rf(state_v=DRIVE_V)
    stated = await _states(chain) / max(both, 1e-15)
    exchanged = stated < 0.5 and await _exchanged(chain, both)
    bright = await _pulses(chain, 0, 0)
    await source.set_rf(decoy_v=DRIVE_V)
    dim = await _pulses(chain, 0, 1)
    await dark_mode(bench)
    for m in MODULATORS:
        await chain.element(m, chain.peak[m])
    return _drives(chain, carved, (stated, dim / max(bright, 1e-15)), exchanged)


async def _pulses(chain: Chain, state: int, intensity: int) -> float:
    """Photocurrent behind the modulators that the carver's pulses alone make, A."""
    out = []
    for volts in (DRIVE_V, 0.0):
        await chain.bench.context.need_source().set_rf(carver_v=volts)
        await shine(chain.bench.context, LightMode.FIX, state, intensity)
        out.append((await chain.settled(64))[chain.see["pa3"]])
    return out[0] - out[1]


async def _states(chain: Chain) -> float:
    return await _pulses(chain, 0, 0) + await _pulses(chain, 1, 0)


async def _exchanged(chain: Chain, both: float) -> bool:
    """Whether the drive of the state modulator answers when the decoy modulator's bias is at its null instead."""
    await chain.element("state", chain.peak["state"])
    await chain.element("decoy", chain.null["decoy"])
    seen = await _states(chain) / max(both, 1e-15)
    await chain.element("decoy", chain.peak["decoy"])
    await chain.element("state", chain.null["state"])
    return seen > 0.5


def _drives(chain: Chain, carved: float, later: tuple[float, float] | None, exchanged: bool = False) -> list[Finding]:
    """`later`: of state and decoy modulator; None without pulses to drive them with."""
    source = (chain.bench.part("source"), chain.bench.bus("source"))
    pair = cables("modulator", "state", "decoy")
    out = [Finding("exchanged.bias_and_drive", float(exchanged), "", Limits.exactly(0.0), pair, (), "by their drives")]
    driven = [("carver", carved, CARVED)]
    if later is not None:
        driven += [("state", later[0], STATED), ("decoy", later[1], DECOYED)]
    for name, value, limits in driven:
        part = f"modulator {name}"
        before = [f"modulator {m}" for m in MODULATORS[: MODULATORS.index(name)]]
        seen = chain.upstream("pa1" if name == "carver" else "pa3")
        # The light of the state modulator is judged before the decoy modulator is driven.
        seen = tuple(n for n in seen if not n.startswith("modulator"))
        needs = (*source, *cables_of("modulator", name, MODULATORS), *before, *seen)
        hint = f"light of its pulses over what its bias gives, at {DRIVE_V:g} V of drive"
        out.append(Finding(f"drive.{name}", value, "1", limits, part, needs, hint))
    return out


async def attenuator_findings(chain: Chain, v_pi: float, bar_w: float) -> list[Finding]:
    """The table at a few points, and whether it follows. The carver dims what leaves to that of service or less; a
    shutter that is open meanwhile is crossed again afterwards."""
    table, biases = chain.bench.context.factory.voa, chain.bench.context.biases
    if table is None or "pa7" not in chain.diodes:
        return [skipped("attenuator.offset", "attenuator", "no table, or no photodiode behind it")]
    if not table.db[0] <= min(ATTENUATIONS_DB) <= max(ATTENUATIONS_DB) <= table.db[-1]:
        return [skipped("attenuator.offset", "attenuator", f"its table ends at {table.db[-1]:.1f} dB")]
    cross_w = chain.base.get(chain.act["shutter"], 0.0)
    off: list[float] = []
    lag = 0.0
    try:
        await chain.element("carver", chain.null["carver"])
        closed = await chain.settled(64)
        least, most = closed[chain.see["pa3"]], closed[chain.see["pa7"]]
        chain.leaky = most > DARK_A
        if not chain.leaky:
            await chain.element("shutter", bar_w)
            most = (await chain.settled(64))[chain.see["pa7"]]
            chain.leaky = most > CLOSED_A
        for db in () if chain.leaky else ATTENUATIONS_DB:
            await _dim(chain, v_pi, db, least)
            await biases.set_voltage("voa", table.voltage(db))
            await chain.bench.sleep(FOLLOW_S)
            soon, _ = await _attenuation(chain)
            await chain.bench.sleep(LATER_S)
            seen, amperes = await _attenuation(chain)
            lag = max(lag, abs(seen - soon))
            off.append(seen - db)
            if amperes > TOO_MUCH_A:
                break
    finally:
        await biases.set_voltage("voa", biases.limits("voa")[1])
        await chain.element("shutter", cross_w)
        await chain.bench.sleep(FOLLOW_S)
        await chain.element("carver", chain.null["carver"] if chain.leaky else chain.peak["carver"])
    return _attenuations(chain, float(chain.leaky), most, off, lag)


async def _dim(chain: Chain, v_pi: float, db: float, least: float) -> None:
    """So much light that the photodiode behind the attenuator has what it has in service. `least`: A of pa3 with the
    carver closed."""
    law = {d: chain.bench.context.factory.photodiode(d) for d in ("pa3", "pa7")}
    share = 10.0 ** (-(db + OUTPUT_DB) / 10.0) * PAD * law["pa7"].responsivity_a_per_w * law["pa7"].tap_ratio
    wanted = SERVICE_A / share * law["pa3"].responsivity_a_per_w * law["pa3"].tap_ratio
    full = chain.bright_a
    await chain.element("carver", chain.dimmed("carver", v_pi, (wanted - least) / full))
    await chain.bench.context.settle()


async def _attenuation(chain: Chain) -> tuple[float, float]:
    """(dB between shutter and photodiode less the design's output coupler, A of that photodiode)."""
    seen = await chain.read(128)
    before = chain.watts(seen, chain.see["pa3"], "pa3")
    tap = chain.bench.context.factory.photodiode("pa3").tap_ratio
    after = chain.watts(seen, chain.see["pa7"], "pa7") / PAD
    return -10.0 * log10(after / (before * (1.0 - tap))) - OUTPUT_DB, seen[chain.see["pa7"]]


def _attenuations(chain: Chain, leaks: float, seen_a: float, off: list[float], lag: float) -> list[Finding]:
    part = "attenuator"
    needs = (
        chain.bench.part("biases"),
        "photodiode pa7",
        "modulator carver",
        "heater shutter",
        "path shutter",
        *chain.upstream("pa3"),
    )
    said = f"at its maximum and with the carver closed {seen_a:.2g} A are seen behind it"
    closes = Finding("attenuator.leaks", leaks, "", Limits.exactly(0.0), part, needs, said)
    if not off:
        return [closes]
    shape = float(np.ptp(off)) if len(off) == len(ATTENUATIONS_DB) else float("nan")
    hint = ", ".join(f"{o:+.2f} dB at {db:g} dB" for o, db in zip(off, ATTENUATIONS_DB, strict=False))
    chain.bench.figures["attenuator"] = Plot(
        "Attenuator less its table",
        "attenuation by the table (dB)",
        "deviation (dB)",
        [Series("pa7", list(ATTENUATIONS_DB[: len(off)]), off)],
    )
    mean = float(np.mean(off))
    return [
        closes,
        Finding("attenuator.shape", shape, "dB", SHAPE_DB, part, needs, "it does not follow its table: " + hint),
        Finding("attenuator.offset", mean, "dB", OFFSET_DB, part, needs, hint + "; or path output"),
        Finding("attenuator.lag", lag, "dB", LAG_DB, part, needs, f"still moving {FOLLOW_S:g} s after it was set"),
    ]
