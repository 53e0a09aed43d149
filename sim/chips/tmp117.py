"""TMP117: digital temperature sensor (data sheet SBOS901)."""

from __future__ import annotations

from collections.abc import Callable

from sim.chips.registers import PointerRegisters, signed, twos
from sim.clock import SimClock
from sim.trouble import Trouble

TEMPERATURE, CONFIG, HIGH_LIMIT, LOW_LIMIT, UNLOCK, EEPROM1, EEPROM2, OFFSET, EEPROM3, DEVICE = (*range(9), 0x0F)
LSB_C = 7.8125e-3
NO_RESULT = 0x8000
CONFIG_RESET = 0x0220
CONFIG_WRITABLE = 0x0FFC
HIGH_ALERT, LOW_ALERT, DATA_READY = 0x8000, 0x4000, 0x2000
SOFT_RESET = 0x0002
SHUTDOWN, ONE_SHOT = 1, 3
AVERAGES = (1, 8, 32, 64)
CONVERSION_S = 0.0155
STANDBY_CYCLE_S = (0.0155, 0.125, 0.25, 0.5, 1.0, 4.0, 8.0, 16.0)
FACTORY_EEPROM = {HIGH_LIMIT: 0x6000, LOW_LIMIT: 0x8000, OFFSET: 0, EEPROM1: 0x1234, EEPROM2: 0x5678, EEPROM3: 0x9ABC}
EEPROM_UNLOCKED = 0x8000


class Tmp117(PointerRegisters):
    """`celsius()` is the temperature at the part, C. The result reads 0x8000 until the first conversion has ended."""

    def __init__(self, clock: SimClock, celsius: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._celsius = celsius
        self._eeprom = {**FACTORY_EEPROM, CONFIG: CONFIG_RESET}
        self.trouble = Trouble()
        self.power_on_reset()

    def power_on_reset(self) -> None:
        self.pointer = 0
        self._registers = dict(self._eeprom)
        self._registers[UNLOCK] = 0
        self._result = NO_RESULT
        self._flags = 0
        self._restart()

    def _restart(self) -> None:
        self._started = self._clock.now()
        self._conversions = 0

    def _active_s(self) -> float:
        """Time that one averaged conversion takes."""
        return CONVERSION_S * AVERAGES[self._registers[CONFIG] >> 5 & 3]

    def _cycle_s(self) -> float:
        return max(STANDBY_CYCLE_S[self._registers[CONFIG] >> 7 & 7], self._active_s())

    def _convert(self) -> None:
        mode = self._registers[CONFIG] >> 10 & 3
        if mode == SHUTDOWN or self.trouble.has("unready"):
            return
        elapsed = self._clock.now() - self._started - self._active_s()
        ended = 0 if elapsed < -1e-12 else 1 + int(elapsed / self._cycle_s() + 1e-9)
        if mode == ONE_SHOT:
            ended = min(ended, 1)
        if ended <= self._conversions:
            return
        self._conversions = ended
        offset = signed(self._registers[OFFSET], 16)
        if not (self.trouble.has("frozen") and self._result != NO_RESULT):
            off_k = self.trouble.value("offset", default=3.0) + self.trouble.noise(default=0.5)
            self._result = twos(round((self._celsius() + off_k) / LSB_C) + offset, 16)
        self._flags |= DATA_READY
        reading = signed(self._result, 16)
        if reading > signed(self._registers[HIGH_LIMIT], 16):
            self._flags |= HIGH_ALERT
        if reading < signed(self._registers[LOW_LIMIT], 16):
            self._flags |= LOW_ALERT
        if mode == ONE_SHOT:  # back to shutdown by itself
            self._registers[CONFIG] = self._registers[CONFIG] & ~0x0C00 | SHUTDOWN << 10

    def _load(self, register: int) -> int:
        self._convert()
        if register == TEMPERATURE:
            self._flags &= ~DATA_READY
            return self._result
        if register == CONFIG:
            value = self._registers[CONFIG] | self._flags
            self._flags = 0  # reading the configuration clears ready and alerts
            return value
        return 0x0117 if register == DEVICE else self._registers.get(register, 0)

    def _store(self, register: int, value: int) -> None:
        if register == CONFIG:
            if value & SOFT_RESET:
                pointer = self.pointer
                self.power_on_reset()
                self.pointer = pointer
                return
            self._registers[CONFIG] = value & CONFIG_WRITABLE
            self._restart()
        elif register == UNLOCK:
            self._registers[UNLOCK] = value & EEPROM_UNLOCKED
        elif register in self._registers:
            self._registers[register] = value
        if register in self._eeprom and self._registers[UNLOCK] & EEPROM_UNLOCKED:
            self._eeprom[register] = self._registers[register]
