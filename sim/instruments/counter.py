"""Universal counter, Keysight 53220A: totalise on channel 1 or 2 (programming guide; reference hardware A7, B)."""

from __future__ import annotations

import math
from collections.abc import Callable

from sim.clock import SimClock
from sim.scpi import Argument, ScpiError, ScpiInstrument, number, word
from sim.trouble import Trouble

GATE_S = (100e-6, 1000.0)


class Counter(ScpiInstrument):
    """`counts(channel, seconds, level_v)` are the pulses on input `channel` (0 or 1) in an interval of that length that
    ends now, above a threshold of `level_v`."""

    def __init__(self, clock: SimClock, counts: Callable[[int, float, float], float], serial: str) -> None:
        self._clock = clock
        self._counts = counts
        self.trouble = Trouble()
        super().__init__(f"Keysight Technologies,53220A,{serial},03.02-0000.000-0.0.00-00-00-00")
        add = self.commands.add
        add("INPut#:COUPling", lambda n, a: self._choice(n, a, ("DC", "AC")), 1)
        add("INPut#:IMPedance", self._impedance, 1)
        add("INPut#:LEVel", self._level, 1)
        add("INPut#:LEVel?", lambda n: f"{self._level_v[self._input(n)]:+.8E}")
        add("INPut#:SLOPe", lambda n, a: self._choice(n, a, ("POS", "NEG", "POSITIVE", "NEGATIVE")), 1)
        add("CONFigure:TOTalize:TIMed", self._configure, 1, 2)
        add("INITiate", self._initiate)
        add("FETCh?", self._fetch)
        add("ABORt", self._abort)
        self.reset()

    def power_on_reset(self) -> None:
        self.reset()
        self._errors.clear()

    def reset(self) -> None:
        self._level_v = [0.0, 0.0]
        self._gate_s = 0.1
        self._channel = 0
        self._ends: float | None = None
        self._result: float | None = None

    @staticmethod
    def _input(suffix: int) -> int:
        if not 1 <= suffix <= 2:
            raise ScpiError(-113, f"input {suffix}")
        return suffix - 1

    def _choice(self, suffix: int, argument: Argument, allowed: tuple[str, ...]) -> None:
        self._input(suffix)
        if word(argument) not in allowed:
            raise ScpiError(-224, word(argument))

    def _impedance(self, suffix: int, argument: Argument) -> None:
        self._input(suffix)
        if number(argument) not in (50.0, 1e6):
            raise ScpiError(-224, "impedance")

    def _level(self, suffix: int, argument: Argument) -> None:
        volts = number(argument)
        if not -5.125 <= volts <= 5.125:
            raise ScpiError(-222, "level")
        self._level_v[self._input(suffix)] = volts

    def _configure(self, gate: Argument, channel: Argument = b"(@1)") -> None:
        seconds = number(gate)
        if not GATE_S[0] <= seconds <= GATE_S[1]:
            raise ScpiError(-222, "gate time")
        if channel not in (b"(@1)", b"(@2)"):
            raise ScpiError(-224, "channel list")
        self._channel = 0 if channel == b"(@1)" else 1
        self._gate_s, self._result, self._ends = seconds, None, None

    def _initiate(self) -> None:
        self._ends = self._clock.now() + self._gate_s
        self._result = None

    def _abort(self) -> None:
        self._ends = self._result = None

    def _fetch(self) -> str:
        """FETCh? does not clear the result, and is refused while the gate is open."""
        if self._ends is not None:
            if self._clock.now() < self._ends - 1e-9:
                raise ScpiError(-221, "measurement in progress")
            open_s = self._gate_s * self.trouble.value("gate", default=0.5, sound=1.0)
            self._result = self._counts(self._channel, open_s, self._level_v[self._channel])
            if self.trouble.has("dead", self._channel):
                self._result = 0.0
            self._ends = None
        if self._result is None:
            raise ScpiError(-221, "no measurement")
        return f"{math.floor(self._result):+.14E}"
