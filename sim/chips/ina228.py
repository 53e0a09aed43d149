"""INA228: 20-bit power monitor with energy and charge accumulators (data sheet SLYS021, registers as listed there)."""

from __future__ import annotations

from collections.abc import Callable

from sim.chips.registers import PointerRegisters, signed, twos
from sim.clock import SimClock
from sim.trouble import Trouble

CONFIG, ADC_CONFIG, SHUNT_CAL, SHUNT_TEMPCO, VSHUNT, VBUS, DIETEMP, CURRENT, POWER, ENERGY, CHARGE, DIAG = range(12)
SOVL, SUVL, BOVL, BUVL, TEMP_LIMIT, PWR_LIMIT, MANUFACTURER, DEVICE = 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x11, 0x3E, 0x3F
RESET_VALUES = {
    CONFIG: 0x0000,
    ADC_CONFIG: 0xFB68,
    SHUNT_CAL: 0x1000,
    SHUNT_TEMPCO: 0x0000,
    DIAG: 0x0001,
    SOVL: 0x7FFF,
    SUVL: 0x8000,
    BOVL: 0x7FFF,
    BUVL: 0x0000,
    TEMP_LIMIT: 0x7FFF,
    PWR_LIMIT: 0xFFFF,
}
SIZES = {VSHUNT: 3, VBUS: 3, CURRENT: 3, POWER: 3, ENERGY: 5, CHARGE: 5}
CONVERSION_US = (50, 84, 150, 280, 540, 1052, 2074, 4120)
AVERAGES = (1, 4, 16, 64, 128, 256, 512, 1024)
VBUS_LSB_V = 195.3125e-6
VSHUNT_LSB_V = (312.5e-9, 78.125e-9)
TEMPERATURE_LSB_C = 7.8125e-3
DIAG_ALATCH, DIAG_CNVR, DIAG_SLOW, DIAG_POLARITY = 15, 14, 13, 12
DIAG_WRITABLE = 0xF000
DIAG_TMPOL, DIAG_SHNTOL, DIAG_SHNTUL, DIAG_BUSOL, DIAG_BUSUL, DIAG_POL, DIAG_CNVRF = 7, 6, 5, 4, 3, 2, 1


class Ina228(PointerRegisters):
    """`measure()` gives (bus V, current A); `die_c()` the die temperature, C; `shunt_ohm` is the resistor on the board.

    Results change as conversions end; before the first one they read 0.
    """

    def __init__(
        self,
        clock: SimClock,
        measure: Callable[[], tuple[float, float]],
        *,
        shunt_ohm: float,
        die_c: Callable[[], float] = lambda: 35.0,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._measure = measure
        self._shunt_ohm = shunt_ohm
        self._die_c = die_c
        self.trouble = Trouble()
        self.power_on_reset()

    def power_on_reset(self) -> None:
        self.pointer = 0
        self._registers = dict(RESET_VALUES)
        self._results = {VSHUNT: 0, VBUS: 0, DIETEMP: 0, CURRENT: 0, POWER: 0}
        self._flags = 0
        self._energy = self._charge = 0.0
        self._restart()

    def _restart(self) -> None:
        self._started = self._converted_at = self._clock.now()
        self._conversions = 0

    def _size(self, register: int) -> int:
        return SIZES.get(register, 2)

    def _store(self, register: int, value: int) -> None:
        self._convert()
        if register == CONFIG:
            if value & 0x8000:
                pointer = self.pointer
                self.power_on_reset()
                self.pointer = pointer
                return
            if value & 0x4000:
                self._energy = self._charge = 0.0
            self._registers[CONFIG] = value & 0x3FF0
        elif register == ADC_CONFIG:
            self._registers[ADC_CONFIG] = value
            self._restart()
        elif register == DIAG:
            self._registers[DIAG] = value & DIAG_WRITABLE | 1
        elif register == SHUNT_CAL:
            self._registers[SHUNT_CAL] = value & 0x7FFF
        elif register in RESET_VALUES:
            self._registers[register] = value

    def _load(self, register: int) -> int:
        self._convert()
        if register in self._results:
            raw = self._results[register]
            return raw << 4 if register in (VSHUNT, VBUS, CURRENT) else raw
        if register == ENERGY:
            return int(self._energy) & (1 << 40) - 1
        if register == CHARGE:
            return twos(int(self._charge), 40)
        if register == DIAG:
            value = self._registers[DIAG] | self._flags
            if self._registers[DIAG] >> DIAG_ALATCH & 1:  # only a latched flag is cleared by reading
                self._flags = 0
            return value
        return {MANUFACTURER: 0x5449, DEVICE: 0x2281}.get(register, self._registers.get(register, 0))

    def _period_s(self) -> float:
        setting = self._registers[ADC_CONFIG]
        mode = setting >> 12 & 7
        times = [CONVERSION_US[setting >> shift & 7] for shift, bit in ((9, 0), (6, 1), (3, 2)) if mode >> bit & 1]
        return sum(times) * AVERAGES[setting & 7] * 1e-6

    def _convert(self) -> None:
        """Bring results up to the last conversion that has ended."""
        mode = self._registers[ADC_CONFIG] >> 12
        period = self._period_s()
        if period == 0.0:
            return
        ended = int((self._clock.now() - self._started) / period + 1e-9)
        if mode < 8:  # triggered: one conversion
            ended = min(ended, 1)
        if ended > self._conversions:
            self._conversions = ended
            self._take(mode & 7)

    def _take(self, inputs: int) -> None:
        r, trouble = self._results, self.trouble
        if trouble.has("frozen") and r[VBUS]:
            return
        volts, amperes = self._measure()
        volts *= trouble.value("voltage", default=0.8, sound=1.0)
        amperes = amperes * trouble.value("gain", default=0.8, sound=1.0) + trouble.value("offset", default=0.01)
        if inputs & 1:
            r[VBUS] = min(max(round(volts / VBUS_LSB_V), 0), (1 << 19) - 1)
        if inputs & 2:
            lsb = VSHUNT_LSB_V[self._registers[CONFIG] >> 4 & 1]
            r[VSHUNT] = twos(round(amperes * self._shunt_ohm / lsb), 20)
        if inputs & 4:
            r[DIETEMP] = twos(round(self._die_c() / TEMPERATURE_LSB_C), 16)
        shunt, cal = signed(r[VSHUNT], 20), self._registers[SHUNT_CAL]
        current = round(shunt * 4096 / cal) if cal else 0
        r[CURRENT] = twos(current, 20)
        r[POWER] = min(round(r[VBUS] * VBUS_LSB_V * abs(current) / 3.2), (1 << 24) - 1)
        now = self._clock.now()
        elapsed, self._converted_at = now - self._converted_at, now
        self._energy += r[POWER] * elapsed / 16.0
        self._charge += current * elapsed
        self._alert(shunt)

    def _alert(self, shunt: int) -> None:
        limits, r = self._registers, self._results
        shunt_limit_lsb = 16  # limits are 16-bit, in units of 16 result LSB
        exceeded = {
            DIAG_CNVRF: True,
            DIAG_SHNTOL: shunt > signed(limits[SOVL], 16) * shunt_limit_lsb + 15,
            DIAG_SHNTUL: shunt < signed(limits[SUVL], 16) * shunt_limit_lsb,
            DIAG_BUSOL: r[VBUS] > limits[BOVL] * 16 + 15,
            DIAG_BUSUL: r[VBUS] < limits[BUVL] * 16,
            DIAG_TMPOL: signed(r[DIETEMP], 16) > signed(limits[TEMP_LIMIT], 16),
            DIAG_POL: r[POWER] > limits[PWR_LIMIT] * 256 + 255,
        }
        now = sum(1 << bit for bit, on in exceeded.items() if on)
        latched = limits[DIAG] >> DIAG_ALATCH & 1
        self._flags = self._flags | now if latched else now
