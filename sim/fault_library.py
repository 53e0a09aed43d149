"""Single faults that a module's self-test must see: every part, bus, optical path and supply, in every manner.

One case is one thing broken from power-on, with the names under which it may be reported. Where two names are given,
nothing inside the module can tell the two apart (a current source and the heater behind a broken wire can be told
apart; an attenuator drive and the attenuator cannot), or they are two names of one thing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sim.faults import Fault
from sim.scenario import FaultLine

CATEGORIES = ("open", "short", "stuck", "offset", "swapped", "slow", "noisy", "intermittent", "dead")


@dataclass(frozen=True)
class FaultCase:
    """`side`: the module that has it. `category`: one of CATEGORIES. `parts`: names that count as right."""

    name: str
    side: str
    category: str
    faults: tuple[Fault, ...]
    parts: frozenset[str]

    def lines(self) -> tuple[FaultLine, ...]:
        """The faults as a scenario has them."""
        return tuple(FaultLine.model_validate(_line(f)) for f in self.faults)


def _line(fault: Fault) -> dict[str, Any]:
    line = {"at": fault.at, "on": fault.target, "what": fault.kind, "value": fault.value}
    line["probability"] = fault.probability
    if math.isfinite(fault.every):
        line |= {"every": fault.every, "share": fault.share}
    return line


def _case(
    side: str, category: str, name: str, kind: str, targets: str, *parts: str, value: float | None = None, **more: float
) -> FaultCase:
    """`targets`: without the module's name, apart by blanks where one thing is behind several."""
    faults = tuple(Fault(0.0, kind, f"{side}.{target}", value=value, **more) for target in targets.split())
    return FaultCase(f"{side}: {name}", side, category, faults, frozenset(parts))


A, B = "alice", "bob"

BUSES = (
    _case(A, "stuck", "i2c 1 held low", "stuck", "i2c1", "bus i2c:1"),
    _case(B, "intermittent", "i2c 1 loses acknowledges", "nack", "i2c1", "bus i2c:1", probability=0.15),
    _case(B, "noisy", "i2c 1 flips bits", "crc", "i2c1", "bus i2c:1", probability=0.1),
    _case(B, "stuck", "i2c 2 held low", "stuck", "i2c2", "bus i2c:2", "platform"),
    _case(A, "intermittent", "i2c 2 loses acknowledges", "nack", "i2c2", "bus i2c:2", "platform", probability=0.15),
    _case(A, "dead", "spi 0 reads zeros", "hang", "spi0.0 spi0.1", "bus spi:0"),
    _case(B, "noisy", "spi 0 flips bits", "crc", "spi0.0 spi0.1", "bus spi:0", probability=0.1),
    _case(A, "open", "spi 1 reads ones", "stuck", "spi1.0", "bus spi:1", "monitor_adc"),
    _case(B, "noisy", "spi 1 flips bits", "crc", "spi1.0", "bus spi:1", "monitor_adc", probability=0.1),
    _case(B, "dead", "no word from the TEC controller", "hang", "serial.tec", "bus of tec", "tec"),
    _case(
        A, "noisy", "line of the TEC controller flips bits", "crc", "serial.tec", "bus of tec", "tec", probability=0.1
    ),
    _case(
        A, "intermittent", "laser misses requests", "nack", "serial.laser", "bus of laser", "laser", probability=0.15
    ),
    _case(
        A,
        "slow",
        "symbol source answers late",
        "late",
        "visa.source",
        "bus of symbol_source",
        "symbol_source",
        value=1.5,
    ),
    _case(
        B,
        "intermittent",
        "tagger misses requests",
        "nack",
        "visa.tagger",
        "bus of time_tagger",
        "time_tagger",
        probability=0.15,
    ),
    _case(B, "dead", "no word from the detectors' controller", "hang", "tcp.snspd", "bus of detectors", "detectors"),
    _case(B, "slow", "counter answers late", "late", "visa.counter", "bus of counter", "counter", value=1.5),
    _case(B, "dead", "no word from the cryostat", "hang", "visa.cryostat", "bus of cryostat", "cryostat"),
)

SOURCES = (
    _case(A, "stuck", "heater DAC: channel split stuck", "stuck", "ltc2672.1", "heater_dac", value=20_000),
    _case(B, "offset", "heater DAC: channel basis off", "offset", "ltc2672.0", "heater_dac"),
    _case(A, "offset", "heater DAC: channel phase gives too little", "gain", "ltc2672.2", "heater_dac"),
    _case(A, "noisy", "heater DAC: channel split noisy", "noisy", "ltc2672.1", "heater_dac"),
    _case(B, "noisy", "heater DAC: echo wrong", "echo", "ltc2672", "heater_dac"),
    _case(A, "stuck", "heater DAC: over-temperature flag", "flags", "ltc2672", "heater_dac"),
    _case(B, "dead", "heater DAC dead", "hang", "ltc2672", "heater_dac"),
    _case(
        A, "stuck", "bias DAC: channel state stuck", "stuck", "ltc2668.1", "bias_dac", "modulator state", value=40_000
    ),
    _case(A, "noisy", "bias DAC: channel carver noisy", "noisy", "ltc2668.0", "bias_dac", "modulator carver"),
    _case(
        A,
        "swapped",
        "bias DAC: carver and decoy exchanged",
        "swapped",
        "ltc2668.0-2",
        "bias_dac",
        "modulator carver",
        "modulator decoy",
        "cables of modulator carver and modulator decoy",
    ),
    _case(B, "stuck", "bias DAC: channel of the shutter stuck", "stuck", "ltc2668.0", "bias_dac", "shutter"),
    _case(B, "noisy", "bias DAC: echo wrong", "echo", "ltc2668", "bias_dac"),
    _case(A, "dead", "bias DAC dead", "hang", "ltc2668", "bias_dac"),
)

READERS = (
    _case(A, "stuck", "ADC: channel of pa0 stuck", "stuck", "ads131m08.0", "monitor_adc"),
    _case(B, "offset", "ADC: channel of pb1 off", "offset", "ads131m08.1", "monitor_adc"),
    _case(A, "noisy", "ADC: channel of pa3 noisy", "noisy", "ads131m08.3", "monitor_adc"),
    _case(B, "offset", "ADC: gain of the channel of pb3", "gain", "ads131m08.4", "monitor_adc"),
    _case(A, "offset", "ADC: reference off", "reference", "ads131m08", "monitor_adc", value=1.1),
    _case(B, "intermittent", "ADC: input frames spoilt", "upset", "ads131m08", "monitor_adc", "bus spi:1", value=0.2),
    _case(A, "offset", "rail monitor: current off", "offset", "ina228", "heater_rail"),
    _case(B, "offset", "rail monitor: current too low", "gain", "ina228", "heater_rail"),
    _case(A, "stuck", "rail monitor: conversions stand still", "frozen", "ina228", "heater_rail"),
    _case(B, "dead", "rail monitor gone", "unplug", "ina228", "heater_rail"),
    _case(A, "offset", "witness of the submount off", "offset", "tmp117", "submount"),
    _case(B, "slow", "witness of the submount never ready", "unready", "tmp117", "submount"),
    _case(B, "stuck", "witness of the submount stuck", "frozen", "tmp117", "submount"),
    _case(A, "noisy", "witness of the submount noisy", "noisy", "tmp117", "submount"),
)

PLATFORM = (
    _case(A, "stuck", "expander: LED line low", "low", "pca9535.3", "platform"),
    _case(A, "stuck", "expander: laser enable high", "high", "pca9535.1", "platform"),
    _case(B, "open", "expander: heater enable not driven", "floating", "pca9535.2", "platform"),
    _case(A, "stuck", "expander: tripped line high", "high", "pca9535.9", "platform", "watchdog"),
    _case(A, "dead", "expander gone", "unplug", "pca9535", "platform", "bus i2c:2"),
    _case(B, "stuck", "watchdog never trips", "never", "watchdog", "watchdog", "platform"),
    _case(A, "open", "interlock open", "open", "interlock", "interlock"),
    _case(B, "open", "cover open", "open", "cover", "cover", "interlock"),
    _case(A, "offset", "supply low", "sagging", "pmbus", "supply"),
    _case(B, "offset", "supply high", "rising", "pmbus", "supply"),
    _case(A, "offset", "supply's input low", "input", "pmbus", "supply"),
    _case(B, "offset", "supply hot", "hot", "pmbus", "supply"),
    _case(A, "slow", "fan slow", "slow", "pmbus", "fan"),
    _case(B, "dead", "fan stands", "slow", "pmbus", "fan", value=0.0),
    _case(A, "dead", "supply does not answer", "unplug", "pmbus", "supply"),
    _case(A, "noisy", "EEPROM: bits flipped", "flipped", "eeprom24c64.1100 eeprom24c64.100", "fru_eeprom"),
    _case(B, "dead", "EEPROM gone", "unplug", "eeprom24c64", "fru_eeprom"),
)

INSTRUMENTS = (
    _case(A, "dead", "TEC controller in error", "error", "tec", "tec"),
    _case(B, "stuck", "TEC controller keeps no gains", "forgetful", "tec", "tec"),
    _case(A, "stuck", "TEC controller's readings stand still", "stale", "tec", "tec"),
    _case(B, "offset", "TEC controller's output stage weak", "weak", "tec", "tec", "peltier"),
    _case(A, "dead", "TEC controller gone", "unplug", "tec", "tec", "bus of tec"),
    _case(A, "dead", "laser: fatal status", "fatal", "laser", "laser"),
    _case(A, "offset", "laser: alarm status", "alarm", "laser", "laser"),
    _case(A, "offset", "laser emits too little", "weak", "laser", "laser"),
    _case(A, "offset", "laser off its frequency", "detuned", "laser", "laser"),
    _case(A, "slow", "laser never done", "unlit", "laser", "laser"),
    _case(A, "stuck", "random basis stuck", "stuck", "source.basis", "symbol_source", "random numbers"),
    _case(A, "offset", "random value biased", "biased", "source.value", "symbol_source", "random numbers"),
    _case(A, "dead", "carver's drive dead", "weak", "source.carver", "symbol_source", "modulator carver"),
    _case(A, "offset", "decoy's drive weak", "weak", "source.decoy", "symbol_source", "modulator decoy", value=0.5),
    _case(A, "offset", "phase randomiser weak", "randomiser", "source", "symbol_source"),
    _case(A, "noisy", "symbol source: reference unlocked", "unlocked", "source", "symbol_source"),
    _case(A, "dead", "symbol source: generator unhealthy", "health", "source", "symbol_source", "random numbers"),
    _case(A, "offset", "symbol source: wrong period", "period", "source", "symbol_source"),
    _case(B, "dead", "tagger: input of DX0 dead", "dead", "tagger.1", "time_tagger"),
    _case(B, "noisy", "tagger: input of DX1 noisy", "noisy", "tagger.2", "time_tagger"),
    _case(B, "noisy", "tagger: reference unlocked", "unlocked", "tagger", "time_tagger"),
    _case(B, "dead", "detectors' controller: bias of DZ dead", "dead", "snspd.0", "detectors", "detector DZ"),
    _case(B, "offset", "detectors' controller: bias of DX0 off", "offset", "snspd.1", "detectors", "detector DX0"),
    _case(B, "dead", "detectors' controller: DX1 not counted", "silent", "snspd.2", "detectors"),
    _case(B, "stuck", "detectors' controller: properties stand still", "frozen", "snspd", "detectors"),
    _case(B, "offset", "counter: gate wrong", "gate", "counter", "counter"),
    _case(B, "dead", "counter: input 2 dead", "dead", "counter.1", "counter"),
    _case(B, "open", "cryostat: sensor open", "open", "cryostat", "cryostat"),
    _case(B, "offset", "cryostat warm", "warm", "cryostat", "cryostat", value=2.0),
)

CHIP = (
    _case(A, "open", "heater split open", "open", "heater.1", "heater split"),
    _case(B, "open", "heater split open", "open", "heater.1", "heater split"),
    _case(A, "short", "heater shutter shorted", "short", "heater.3", "heater shutter"),
    _case(B, "short", "heater combine shorted", "short", "heater.3", "heater combine"),
    _case(A, "offset", "heater phase: resistance drifted", "drifted", "heater.2", "heater phase", value=1.4),
    _case(B, "slow", "heater phase slow", "slow", "heater.2", "heater phase"),
    _case(A, "offset", "heater filter: little phase for its power", "weak", "heater.0", "heater filter"),
    _case(
        A,
        "swapped",
        "heaters filter and split exchanged",
        "swapped",
        "heater.0",
        "cables of heater filter and heater split",
        "heater_dac",
        value=1,
    ),
    _case(
        B,
        "swapped",
        "heaters split and phase exchanged",
        "swapped",
        "heater.1",
        "cables of heater split and heater phase",
        "heater_dac",
        value=2,
    ),
    _case(
        B, "intermittent", "heater basis makes bad contact", "open", "heater.0", "heater basis", every=0.2, share=0.3
    ),
    _case(A, "dead", "photodiode pa6 dead", "dead", "photodiode.6", "photodiode pa6"),
    _case(A, "dead", "photodiode pa0 dead", "dead", "photodiode.0", "photodiode pa0"),
    _case(A, "short", "photodiode pa1 shorted", "short", "photodiode.1", "photodiode pa1"),
    _case(A, "offset", "photodiode pa3 insensitive", "insensitive", "photodiode.3", "photodiode pa3", value=0.3),
    _case(A, "stuck", "photodiode pa4 stuck", "stuck", "photodiode.4", "photodiode pa4"),
    _case(A, "offset", "photodiode pa5 leaky", "leaky", "photodiode.5", "photodiode pa5"),
    _case(B, "dead", "photodiode pb0 dead", "dead", "photodiode.0", "photodiode pb0"),
    _case(B, "noisy", "photodiode pb1 noisy", "noisy", "photodiode.1", "photodiode pb1"),
    _case(B, "dead", "photodiode pb2 dead", "dead", "photodiode.3", "photodiode pb2"),
    _case(B, "offset", "photodiode pb3 leaky", "leaky", "photodiode.4", "photodiode pb3"),
    _case(A, "offset", "modulator carver: extinction low", "extinction", "modulator.0", "modulator carver"),
    _case(A, "offset", "modulator state: V_pi high", "weak", "modulator.1", "modulator state"),
    _case(A, "stuck", "modulator decoy: bias stuck", "stuck", "bias.2", "modulator decoy", "bias_dac"),
    _case(A, "open", "modulator state: RF open", "open", "rf.1", "modulator state", "symbol_source"),
    _case(A, "noisy", "laser noisy", "noisy", "laser", "laser"),
    _case(A, "dead", "laser dark", "dead", "laser", "laser"),
    _case(A, "open", "thermistor open", "open", "thermistor", "thermistor", "tec"),
    _case(B, "offset", "thermistor off", "offset", "thermistor", "thermistor", "tec"),
    _case(A, "noisy", "thermistor noisy", "noisy", "thermistor", "thermistor", "tec"),
    _case(B, "open", "Peltier element open", "open", "peltier", "peltier", "tec"),
    _case(A, "offset", "Peltier element weak", "weak", "peltier", "peltier"),
    _case(B, "swapped", "Peltier element reversed", "reversed", "tec", "peltier", "tec"),
    _case(A, "slow", "heat sink blocked", "fan", "tec", "heat sink", value=6.0),
)

PATHS = tuple(
    _case(A, "offset", f"loss in {name}", "loss", f"path.{name}", *parts, value=6.0)
    for name, *parts in (
        ("laser", "path laser"),
        ("filter", "path filter"),
        ("amzi_input", "path amzi_input"),
        ("amzi", "path amzi"),
        ("state", "path state"),
        ("shutter", "path shutter"),
        ("output", "path output", "attenuator"),
    )
) + tuple(
    _case(B, "offset", f"loss in {name}", "loss", f"path.{name}", f"path {name}", value=6.0)
    for name in ("input", "z", "x", "amzi")
)

TRANSMITTER = (
    _case(A, "stuck", "attenuator stuck", "stuck", "attenuator", "attenuator", "bias_dac", value=3.0),
    _case(A, "offset", "attenuator loses too much", "offset", "attenuator", "attenuator", value=4.0),
    _case(A, "slow", "attenuator slow", "slow", "attenuator", "attenuator"),
    _case(A, "offset", "attenuator off its table", "table", "attenuator", "attenuator"),
    _case(A, "dead", "photodiode pa7 dead", "dead", "photodiode.7", "photodiode pa7"),
    _case(A, "dead", "laser lost power", "dim", "laser", "laser", "path laser"),
    _case(A, "offset", "laser in another mode", "hop", "laser", "laser"),
)

RECEIVER = (
    _case(B, "stuck", "input shutter stuck closed", "stuck", "shutter", "shutter", value=0.0),
    _case(B, "stuck", "input shutter stuck open", "stuck", "shutter", "shutter", value=5.0),
    _case(B, "dead", "self-test diode dead", "dead", "diode", "self-test diode"),
    _case(B, "offset", "self-test diode weak", "weak", "diode", "self-test diode"),
    _case(B, "stuck", "shutter of the self-test diode stuck", "stuck", "diode_shutter", "diode shutter", value=0.0),
    _case(B, "dead", "detector DZ dead", "dead", "detector.0", "detector DZ"),
    _case(B, "offset", "detector DX1 latches early", "weak", "detector.2", "detector DX1"),
    _case(B, "short", "detector DX0 will not superconduct", "normal", "detector.1", "detector DX0"),
    _case(B, "offset", "detector DX0 without plateau", "plateau", "detector.1", "detector DX0"),
    _case(B, "noisy", "detector DZ: darks high", "leaky", "detector.0", "detector DZ"),
    _case(B, "offset", "detector DX1 insensitive", "insensitive", "detector.2", "detector DX1", value=0.3),
    _case(B, "swapped", "cables of DX0 and DX1 exchanged", "swapped", "detector", "cables of DX0 and DX1"),
)

CASES = (*BUSES, *SOURCES, *READERS, *PLATFORM, *INSTRUMENTS, *CHIP, *PATHS, *TRANSMITTER, *RECEIVER)
