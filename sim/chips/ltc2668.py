"""LTC2668-16: sixteen voltage outputs up to ±10 V, SoftSpan (its data sheet). 32-bit frames echo the frame before."""

from __future__ import annotations

from collections.abc import Callable

from sim.chips.softspan import SoftSpanDac

CHANNELS = 16
RANGES_V = {0: (0.0, 5.0), 1: (0.0, 10.0), 2: (-5.0, 5.0), 3: (-10.0, 10.0), 4: (-2.5, 2.5)}
CONFIG_REFERENCE_OFF = 0x01


class Ltc2668(SoftSpanDac):
    """`outputs(channel, volts)` is called for the channels that are wired, 0 to `wired` - 1."""

    def __init__(self, outputs: Callable[[int, float], None], wired: int = CHANNELS) -> None:
        self._outputs = outputs
        self._wired = wired
        self._driven = [0.0] * CHANNELS
        super().__init__(CHANNELS, frozenset(RANGES_V))

    def voltage(self, channel: int) -> float:
        """Output voltage, V; a powered-down output is pulled to ground."""
        if not self.powered[channel] or self.config & CONFIG_REFERENCE_OFF:
            return 0.0
        low, high = RANGES_V[self.spans[channel]]
        return low + (high - low) * self._code(channel) / 65536.0

    def _drive(self, channel: int) -> None:
        volts, output = self.voltage(channel), self.trouble.exchanged(channel)
        if volts != self._driven[output]:
            self._driven[output] = volts
            if output < self._wired:
                self._outputs(output, volts)
