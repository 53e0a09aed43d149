"""All electronics of one module on their buses, over one port of the world: what a controller finds behind its /dev."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast
from zlib import crc32

import numpy as np

from sim.busfaults import BusFaults, Schedule
from sim.chips.ads131m08 import Ads131m08
from sim.chips.analog import RELATIVE_NOISE, AnalogBoard, AnalogParameters
from sim.chips.eeprom24c64 import Eeprom24c64
from sim.chips.ina228 import Ina228
from sim.chips.ltc2668 import Ltc2668
from sim.chips.ltc2672 import Ltc2672
from sim.chips.pca9535 import Pca9535
from sim.chips.pmbus import PmbusSupply
from sim.chips.slots import I2cBus, I2cPart, Part, PecTarget, Slot, SpiSlot
from sim.chips.tmp117 import Tmp117
from sim.chips.watchdog import Watchdog
from sim.clock import SimClock
from sim.fru_image import fru_image
from sim.instruments.counter import Counter
from sim.instruments.cryostat import Cryostat
from sim.instruments.itla import Itla
from sim.instruments.ports import CountsPort, ScpiPort
from sim.instruments.snspd import SnspdController
from sim.instruments.stream import StreamLine
from sim.instruments.symbol_source import SymbolSource
from sim.instruments.tec import TecController
from sim.instruments.time_tagger import TimeTagger
from sim.partfaults import PartFaults
from sim.ports import AlicePort, BobPort
from sim.swap import Bay

SHUNT_OHM = 0.05
BIAS_CHANNELS = {"alice": 4, "bob": 3}
# The transmitter has a photodiode there (PA7).
SHORTED = {"alice": None, "bob": 7}
# The controller, the fans and the instruments' own electronics, at 12 V; and what its converters lose.
QUIESCENT_A, CONVERSION = 1.4, 0.85
SUPPLY_V = 12.0
# Superconducting detectors work below this; the cryostat's controller says so on a line of its own.
COLD_K = 3.2
# Height of the discriminator's pulses into 50 ohm at the counter, V.
PULSE_V = 0.8


class Rig:
    """One module's electronics.

    `i2c[bus]`, `spi[bus, device]`, `serial["tec" | "laser"]`, `scpi["source" | "tagger" | "counter" | "cryostat"]`,
    `tcp["snspd" | "snspd_counts"]` are the endpoints; `part(name)` gives the part itself. Alice has laser and source,
    Bob has tagger, snspd, counter and cryostat; both have ina228, tmp117, pca9535, ltc2672, ltc2668, ads131m08, pmbus,
    eeprom24c64 and tec. `scpi` instruments named in `raw_scpi` have a plain socket, the others HiSLIP.

    Call `tick` at least every 0.1 s of world time when nothing else happens: watchdog and timers need no bus traffic.
    """

    def __init__(
        self,
        port: AlicePort | BobPort,
        *,
        clock: SimClock,
        factory_analog: AnalogParameters,
        faults: Schedule | None = None,
        seed: int = 0,
        reading_noise: float = RELATIVE_NOISE,
        eeprom: bytes = b"",
    ) -> None:
        """`factory_analog`: the module's true amplifier constants. `seed`: for noise and for what faults destroy.
        `eeprom`: what its factory wrote there, blank without it.
        `reading_noise`: relative, rms, of one analogue sample."""
        self.port = port
        self.name = port.name
        self.clock = clock
        self._schedule = faults
        self._faults = BusFaults(clock, port.name, faults, seed)
        self._part_faults = PartFaults(port.name, faults)
        self._seed = seed
        self._eeprom = eeprom
        self.bay: Bay | None = None
        self._reading_noise = reading_noise
        self._slots: dict[str, Slot] = {}
        self._scripted_absent: set[str] = set()
        self._resets_done: set[str] = set()
        self._interlock_opened = self._cover_opened = False
        self._ticked = (-1.0, 0)
        self.serial: dict[str, StreamLine] = {}
        self.scpi: dict[str, ScpiPort] = {}
        self.tcp: dict[str, StreamLine | CountsPort] = {}
        self.raw_scpi = frozenset({"cryostat"})
        self._laser: Itla | None = None
        self._alice = cast("AlicePort", port) if port.name == "alice" else None
        self._bob = cast("BobPort", port) if port.name == "bob" else None
        self.watchdog = self._make_watchdog()
        self.i2c = self._make_i2c()
        self.spi = self._make_spi(factory_analog)
        self._tec = TecController(clock, port.tec, serial=crc32(port.serial.encode()) % 10**9)
        self._add_line("tec", self._tec)
        if self._alice is not None:
            self._add_alice(self._alice)
        if self._bob is not None:
            self._add_bob(self._bob)

    # --- building ------------------------------------------------------------------------------------------------

    def _slot(self, name: str, part: Part) -> Slot:
        self._slots[name] = Slot(name, part)
        return self._slots[name]

    def _make_watchdog(self) -> Watchdog:
        def no_laser(on: bool) -> None:
            """Bob's board has the logic, but no laser behind it."""

        laser = self._alice.set_laser_enable if self._alice is not None else no_laser
        return Watchdog(
            self.clock, set_heater_rail=self.port.set_heater_rail, set_laser_enable=laser, sense=self._sense
        )

    def _sense(self) -> tuple[bool, bool]:
        """Lines of the receiver's instruments; a part without supply pulls its line low."""
        bob = self._bob
        if bob is None:
            return False, False
        cryostat = self._slots.get("cryostat")  # not there yet while the rig is built
        cold = cryostat is not None and cryostat.present and bob.cryostat_k() < COLD_K
        return cold, bob.detectors_unbiased

    def _load_a(self) -> float:
        """What the module draws from its supply: heaters and TEC through their converters, and the electronics, A."""
        volts, amperes = self.port.heater_rail()
        watts = volts * amperes + abs(self.port.tec.current_a * self.port.tec.voltage_v)
        return QUIESCENT_A + watts / (CONVERSION * SUPPLY_V)

    def _make_i2c(self) -> dict[int, I2cBus]:
        port, clock = self.port, self.clock
        rail = Ina228(clock, port.heater_rail, shunt_ohm=SHUNT_OHM, die_c=lambda: port.tec.sink_c)
        witness = Tmp117(clock, port.submount_c)
        supply = PmbusSupply(clock, self._load_a, port.inlet_c, f"P{port.serial}")
        memory = Eeprom24c64(clock, self._fru_image())
        expander = Pca9535(self.watchdog.inputs, self.watchdog.lines)
        sensors: dict[int, tuple[Slot, I2cPart]] = {
            0x40: (self._slot("ina228", rail), rail),
            0x48: (self._slot("tmp117", witness), witness),
            0x50: (self._slot("eeprom24c64", memory), memory),
            0x58: (self._slot("pmbus", supply), PecTarget(0x58, supply, supply.length)),
        }
        lines: dict[int, tuple[Slot, I2cPart]] = {0x20: (self._slot("pca9535", expander), expander)}
        return {
            1: I2cBus("i2c1", sensors, self._faults, self.tick),
            2: I2cBus("i2c2", lines, self._faults, self.tick),
        }

    def _fru_image(self) -> bytes:
        """What the factory wrote into the EEPROM."""
        return self._eeprom

    def _make_spi(self, analog: AnalogParameters) -> dict[tuple[int, int], SpiSlot]:
        port, random = self.port, self._random("adc noise")
        heaters = Ltc2672(port, die_c=lambda: port.tec.sink_c)
        biases = Ltc2668(port.set_bias, BIAS_CHANNELS[self.name])
        board = AnalogBoard(analog, port.photocurrents, heaters.mux_v, random, self._reading_noise, SHORTED[self.name])
        converter = Ads131m08(self.clock, board.volts, random)
        return {
            (0, 0): SpiSlot("spi0.0", self._slot("ltc2672", heaters), heaters, self._faults, self.tick),
            (0, 1): SpiSlot("spi0.1", self._slot("ltc2668", biases), biases, self._faults, self.tick),
            (1, 0): SpiSlot("spi1.0", self._slot("ads131m08", converter), converter, self._faults, self.tick),
        }

    def _random(self, purpose: str) -> np.random.Generator:
        words = [self._seed & 0xFFFFFFFFFFFFFFFF, crc32(f"{self.name} {purpose}".encode())]
        return np.random.Generator(np.random.Philox(key=words))

    def _add_line(self, name: str, device: TecController | Itla) -> None:
        slot = self._slot(name, device)
        self.serial[name] = StreamLine(f"serial.{name}", slot, device, self._faults, self.clock, self.tick)

    def _add_alice(self, port: AlicePort) -> None:
        self._laser = Itla(self.clock, port, serial=f"L{port.serial}")
        self._add_line("laser", self._laser)
        source = SymbolSource(port.source, f"S{port.serial}")
        self.scpi["source"] = ScpiPort("visa.source", self._slot("source", source), source, self._faults, self.tick)

    def _add_bob(self, port: BobPort) -> None:
        tagger = TimeTagger(port.tagger, f"T{port.serial}")
        self.scpi["tagger"] = ScpiPort("visa.tagger", self._slot("tagger", tagger), tagger, self._faults, self.tick)
        snspd = SnspdController(self.clock, port)
        slot = self._slot("snspd", snspd)
        self.tcp["snspd"] = StreamLine("tcp.snspd", slot, snspd, self._faults, self.clock, self.tick)
        self.tcp["snspd_counts"] = CountsPort("tcp.snspd_counts", slot, snspd, self._faults, self.tick)

        counter = Counter(
            self.clock, lambda channel, s, level_v: self._pulses(port, channel, s, level_v), f"C{port.serial}"
        )
        self.scpi["counter"] = ScpiPort(
            "visa.counter", self._slot("counter", counter), counter, self._faults, self.tick
        )
        cryostat = Cryostat(port.cryostat_k, f"K{port.serial}")
        self.scpi["cryostat"] = ScpiPort(
            "visa.cryostat", self._slot("cryostat", cryostat), cryostat, self._faults, self.tick
        )

    @staticmethod
    def _pulses(port: BobPort, channel: int, seconds: float, level_v: float) -> float:
        """The counter's inputs hang on the discriminators of DZ and DX0."""
        return float(port.detector_rates(seconds)[channel]) * seconds if 0.0 < level_v < PULSE_V else 0.0

    # --- parts ---------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        """Names of the parts."""
        return iter(self._slots)

    def part(self, name: str) -> Any:
        """The part itself, for tests and chip-level faults. Raises KeyError."""
        return self._slots[name].part

    def present(self, name: str) -> bool:
        return self._slots[name].present

    def unplug(self, name: str) -> None:
        """Take a part off its bus; it loses its supply, so its outputs go to their power-down state."""
        slot = self._slots[name]
        if slot.present:
            slot.present = False
            slot.part.power_on_reset()

    def replug(self, name: str) -> None:
        """Put it back, with its registers as after power-on."""
        slot = self._slots[name]
        if not slot.present:
            slot.part.power_on_reset()
            slot.present = True

    def reset(self, name: str) -> None:
        """A brown-out of one part: it answers, but has forgotten everything."""
        self._slots[name].part.power_on_reset()

    # --- time ----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Bring watchdog, timers and scripted part faults up to now; every transaction does it, too."""
        moment = (self.clock.now(), 0 if self._schedule is None else len(self._schedule))
        if moment == self._ticked:  # neither time nor script has moved
            return
        self._ticked = moment
        self.watchdog.poll()
        self._tec.poll()
        if self._laser is not None:
            self._laser.poll()
        if not self._faults.quiet:
            self._follow_script()

    def _follow_script(self) -> None:
        if self.bay is not None:
            self.bay.follow(self.clock.now())
        for name in self._slots:
            absent = self._faults.active("unplug", name)
            if absent != (name in self._scripted_absent):
                self._scripted_absent ^= {name}
                (self.unplug if absent else self.replug)(name)
            struck = self._faults.active("reset", name)
            if struck != (name in self._resets_done):
                self._resets_done ^= {name}
                if struck:
                    self.reset(name)
        self._tec.stale = self._faults.active("stale", "tec")
        opened = self._faults.active("open", "interlock")
        if opened != self._interlock_opened:
            self._interlock_opened = opened
            self.watchdog.interlock_closed = not opened
        opened = self._faults.active("open", "cover")
        if opened != self._cover_opened:
            self._cover_opened = opened
            self.watchdog.cover_closed = not opened
        self._part_faults.follow(self, self.clock.now())


def build_rigs(world: Any, clock: SimClock) -> Mapping[str, Rig]:
    """The rigs of a `sim.world.World`, by module: "alice" and "bob"; they share its fault schedule and seed."""
    common: dict[str, Any] = {
        "clock": clock,
        "faults": world.faults,
        "seed": world.scenario.seed,
        "reading_noise": world.scenario.modules.reading_noise,
    }
    rigs = {
        p.name: Rig(
            p,
            factory_analog=p.individual.monitors,
            eeprom=fru_image(p.individual, world.scenario.seed),
            **common,
        )
        for p in (world.alice, world.bob)
    }
    for rig in rigs.values():
        rig.bay = Bay(world, rig)
    return rigs
