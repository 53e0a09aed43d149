"""All electronics of one module on their buses, over one port of the world: what a controller finds behind its /dev."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast
from zlib import crc32

import numpy as np

from sim.busfaults import BusFaults, Schedule
from sim.chips.ads131m08 import Ads131m08
from sim.chips.analog import RELATIVE_NOISE, AnalogBoard, AnalogParameters
from sim.chips.ina228 import Ina228
from sim.chips.ltc2668 import Ltc2668
from sim.chips.ltc2672 import Ltc2672
from sim.chips.pca9535 import Pca9535
from sim.chips.slots import I2cBus, I2cPart, Part, Slot, SpiSlot
from sim.chips.tmp117 import Tmp117
from sim.chips.watchdog import Watchdog
from sim.clock import SimClock
from sim.instruments.itla import Itla
from sim.instruments.ports import CountsPort, ScpiPort
from sim.instruments.snspd import SnspdController
from sim.instruments.stream import StreamLine
from sim.instruments.symbol_source import SymbolSource
from sim.instruments.tec import TecController
from sim.instruments.time_tagger import TimeTagger
from sim.ports import AlicePort, BobPort

SHUNT_OHM = 0.05
BIAS_CHANNELS = {"alice": 4, "bob": 1}


class Rig:
    """One module's electronics.

    `i2c[bus]`, `spi[bus, device]`, `serial["tec" | "laser"]`, `scpi["source" | "tagger"]`,
    `tcp["snspd" | "snspd_counts"]` are the endpoints; `part(name)` gives the part itself. Alice has laser and source,
    Bob has tagger and snspd; both have ina228, tmp117, pca9535, ltc2672, ltc2668, ads131m08 and tec.

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
    ) -> None:
        """`factory_analog`: the module's true amplifier constants. `seed`: for noise and for what faults destroy.
        `reading_noise`: relative, rms, of one analogue sample."""
        self.port = port
        self.name = port.name
        self.clock = clock
        self._schedule = faults
        self._faults = BusFaults(clock, port.name, faults, seed)
        self._seed = seed
        self._reading_noise = reading_noise
        self._slots: dict[str, Slot] = {}
        self._scripted_absent: set[str] = set()
        self._resets_done: set[str] = set()
        self._interlock_opened = False
        self._ticked = (-1.0, 0)
        self.serial: dict[str, StreamLine] = {}
        self.scpi: dict[str, ScpiPort] = {}
        self.tcp: dict[str, StreamLine | CountsPort] = {}
        self._laser: Itla | None = None
        self._alice = cast("AlicePort", port) if port.name == "alice" else None
        self.watchdog = self._make_watchdog()
        self.i2c = self._make_i2c()
        self.spi = self._make_spi(factory_analog)
        self._tec = TecController(clock, port.tec, serial=crc32(port.serial.encode()) % 10**9)
        self._add_line("tec", self._tec)
        if self._alice is not None:
            self._add_alice(self._alice)
        else:
            self._add_bob(cast("BobPort", port))

    # --- building ------------------------------------------------------------------------------------------------

    def _slot(self, name: str, part: Part) -> Slot:
        self._slots[name] = Slot(name, part)
        return self._slots[name]

    def _make_watchdog(self) -> Watchdog:
        def no_laser(on: bool) -> None:
            """Bob's board has the logic, but no laser behind it."""

        laser = self._alice.set_laser_enable if self._alice is not None else no_laser
        return Watchdog(self.clock, set_heater_rail=self.port.set_heater_rail, set_laser_enable=laser)

    def _make_i2c(self) -> dict[int, I2cBus]:
        port, clock = self.port, self.clock
        rail = Ina228(clock, port.heater_rail, shunt_ohm=SHUNT_OHM, die_c=lambda: port.tec.sink_c)
        witness = Tmp117(clock, port.submount_c)
        expander = Pca9535(self.watchdog.inputs, self.watchdog.lines)
        sensors: dict[int, tuple[Slot, I2cPart]] = {
            0x40: (self._slot("ina228", rail), rail),
            0x48: (self._slot("tmp117", witness), witness),
        }
        lines: dict[int, tuple[Slot, I2cPart]] = {0x20: (self._slot("pca9535", expander), expander)}
        return {
            1: I2cBus("i2c1", sensors, self._faults, self.tick),
            2: I2cBus("i2c2", lines, self._faults, self.tick),
        }

    def _make_spi(self, analog: AnalogParameters) -> dict[tuple[int, int], SpiSlot]:
        port, random = self.port, self._random("adc noise")
        heaters = Ltc2672(port, die_c=lambda: port.tec.sink_c)
        biases = Ltc2668(port.set_bias, BIAS_CHANNELS[self.name])
        board = AnalogBoard(analog, port.photocurrents, heaters.mux_v, random, self._reading_noise)
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


def build_rigs(world: Any, clock: SimClock) -> Mapping[str, Rig]:
    """The rigs of a `sim.world.World`, by module: "alice" and "bob"; they share its fault schedule and seed."""
    common: dict[str, Any] = {
        "clock": clock,
        "faults": world.faults,
        "seed": world.scenario.seed,
        "reading_noise": world.scenario.modules.reading_noise,
    }
    return {p.name: Rig(p, factory_analog=p.individual.monitors, **common) for p in (world.alice, world.bob)}
