"""Message-based instruments on their ports: VISA (SCPI) and the detectors' stream of counts, with their faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sim.busfaults import NO_EFFECT, BusFaults
from sim.chips.slots import Slot
from sim.instruments.snspd import SnspdController


class MessageDevice(Protocol):
    def execute(self, message: bytes) -> bytes | None: ...


class ScpiPort:
    """A VISA resource. `late_s` is the delay that the script puts on the last reply."""

    def __init__(
        self,
        name: str,
        slot: Slot,
        device: MessageDevice,
        faults: BusFaults,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.late_s = 0.0
        self._slot = slot
        self._device = device
        self._faults = faults
        self._before = before

    @property
    def present(self) -> bool:
        return self._slot.present

    def execute(self, message: bytes) -> bytes | None:
        """Response message, or None where there is none: no query, or the message or its response was lost."""
        self._before()
        if not self._slot.present:
            return None
        effect = NO_EFFECT if self._faults.quiet else self._faults.strike(self.name, self._slot.name)
        self.late_s = effect.late_s
        if "hang" in effect or "nack" in effect:
            return None
        answer = self._device.execute(message)
        if answer is None or "stuck" in effect:
            return None
        answer = self._faults.answer(effect, self._slot.name, message, answer)
        return answer if effect is NO_EFFECT else self._faults.garble(effect, answer)


class CountsPort:
    """The detectors' second TCP port."""

    def __init__(
        self,
        name: str,
        slot: Slot,
        device: SnspdController,
        faults: BusFaults,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._slot = slot
        self._device = device
        self._faults = faults
        self._before = before

    @property
    def present(self) -> bool:
        return self._slot.present

    @property
    def next_line(self) -> float:
        """When the next line will be there, s of the clock."""
        return self._device.next_line

    def stream_lines(self, now: float) -> bytes:
        """Whole lines of the measurement periods that have ended since the last call."""
        self._before()
        if not self._slot.present:
            return b""
        lines = self._device.stream_lines(now)
        if not lines or self._faults.quiet:
            return lines
        effect = self._faults.strike(self.name)
        lost = effect.kinds & {"hang", "nack", "stuck"}
        return b"" if lost else self._faults.garble(effect, lines)
