"""LTC2672-16: five current sources, SoftSpan, fault register, analogue multiplexer (data sheet LTC2672)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sim.chips.softspan import SoftSpanDac

CHANNELS = 5
FAULT_OVERTEMPERATURE = 0x20
FAULT_LENGTH = 0x80
CONFIG_REFERENCE_OFF = 0x01
REFERENCE_V = 1.25
SUPPLY_V = 5.0
SPANS = frozenset([0, 1, 2, 3, 4, 5, 6, 7, 8, 15])


class HeaterOutputs(Protocol):
    """What the current sources drive: part of `sim.ports.ModulePort`."""

    def set_heater_current(self, channel: int, amperes: float) -> None: ...
    def heater_voltage(self, channel: int) -> float: ...
    def heater_open(self, channel: int) -> bool: ...


def full_scale_a(span: int, rfsadj_ohm: float) -> float:
    """Full-scale current of a span code, A; 0 for Hi-Z and for the switch to V−, which nothing here is wired for."""
    if span == 15:
        return 4800.0 * REFERENCE_V / rfsadj_ohm
    return 50.0 * 2.0 ** (span - 1) * REFERENCE_V / rfsadj_ohm if 1 <= span <= 7 else 0.0


class Ltc2672(SoftSpanDac):
    """The first byte out is the fault register, the next three the frame before, so a 32-bit frame verifies a write."""

    def __init__(
        self,
        outputs: HeaterOutputs,
        *,
        rfsadj_ohm: float = 20e3,
        die_c: Callable[[], float] = lambda: 35.0,
    ) -> None:
        self._outputs = outputs
        self._rfsadj_ohm = rfsadj_ohm
        self._die_c = die_c
        self._driven = [0.0] * CHANNELS
        super().__init__(CHANNELS, SPANS)

    def current(self, channel: int) -> float:
        """Programmed output current, A."""
        if not self.powered[channel] or self.config & CONFIG_REFERENCE_OFF:
            return 0.0
        return self._code(channel) / 65536.0 * full_scale_a(self.spans[channel], self._rfsadj_ohm)

    def _drive(self, channel: int) -> None:
        amperes, output = self.current(channel), self.trouble.exchanged(channel)
        if amperes != self._driven[output]:
            self._driven[output] = amperes
            self._outputs.set_heater_current(output, amperes)

    def faults(self) -> int:
        """Fault register: bits 0-4 open circuit, 5 over-temperature, 7 frame of a wrong length."""
        bits = 0 if self.frame_valid else FAULT_LENGTH
        for channel in range(CHANNELS):
            if self._driven[channel] > 0.0 and self._outputs.heater_open(channel):
                bits |= 1 << channel
        if self.trouble.has("flags"):
            bits |= int(self.trouble.value("flags", default=FAULT_OVERTEMPERATURE))
        return bits | (FAULT_OVERTEMPERATURE if self._die_c() > 175.0 else 0)

    def _status(self) -> bytes:
        return bytes([self.faults()])

    def mux_v(self) -> float:
        """Voltage at the multiplexer pin, V; 0 when it is off (a resistor holds it down)."""
        select = self.mux
        if 1 <= select <= CHANNELS:
            scale = full_scale_a(self.spans[select - 1], self._rfsadj_ohm)
            return REFERENCE_V * self._driven[select - 1] / scale if scale else 0.0
        if 0x18 <= select < 0x18 + CHANNELS:
            return self._outputs.heater_voltage(select - 0x18)
        if select == 0x0A:  # 1.4 V at 25 C, -3.7 mV/K
            return 1.4 - 3.7e-3 * (self._die_c() - 25.0)
        return {0x06: SUPPLY_V, 0x08: REFERENCE_V}.get(select, 0.0)
