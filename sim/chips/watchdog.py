"""The hardware watchdog behind the port expander: light and heat only while somebody toggles a line.

Own logic on the board, independent of the buses that it protects. Enables are active high with pull-downs, so an
expander without supply or configuration means dark and cold. The laser's line is also ANDed with the interlock loop
and with the contact of the cover.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sim.clock import SimClock
from sim.trouble import Trouble

LINE_WATCHDOG, LINE_LASER, LINE_HEATER, LINE_LED = 0, 1, 2, 3
LINE_INTERLOCK, LINE_TRIPPED, LINE_COVER, LINE_CRYOSTAT, LINE_UNBIASED = 8, 9, 10, 11, 12
HOLD_S = 0.5


class Watchdog:
    """Trips when the watchdog line has not changed for `hold_s` of world time while an enable is high.

    Re-arms when both enables are low and the line toggles again. `poll` must be called now and then (each transaction
    does; a transport should, every 0.1 s), for a trip needs no traffic. In real time a pause between polls longer than
    `stall_s` is one of the emulator's process, not of the daemon's, and does not count.
    """

    def __init__(
        self,
        clock: SimClock,
        *,
        set_heater_rail: Callable[[bool], None],
        set_laser_enable: Callable[[bool], None],
        hold_s: float = HOLD_S,
        stall_s: float = math.inf,
        sense: Callable[[], tuple[bool, bool]] = lambda: (False, False),
    ) -> None:
        """`sense`: (cryostat cold, every detector unbiased), as lines from instruments; low where there are none."""
        self._clock = clock
        self._set_heater_rail = set_heater_rail
        self._set_laser_enable = set_laser_enable
        self._hold_s = hold_s
        self.stall_s = stall_s
        self._sense = sense
        self._polled = clock.now()
        self.trouble = Trouble()
        self.tripped = False
        self.trips = 0
        self._interlock_closed = True
        self._cover_closed = True
        self._lines = 0
        self._since = clock.now()
        self._applied: tuple[bool, bool] | None = None
        self._apply()

    @property
    def interlock_closed(self) -> bool:
        return self._interlock_closed

    @interlock_closed.setter
    def interlock_closed(self, closed: bool) -> None:
        self._interlock_closed = closed
        self._apply()

    @property
    def cover_closed(self) -> bool:
        return self._cover_closed

    @cover_closed.setter
    def cover_closed(self, closed: bool) -> None:
        self._cover_closed = closed
        self._apply()

    @property
    def led(self) -> bool:
        return bool(self._lines >> LINE_LED & 1)

    def inputs(self) -> int:
        """Levels that the board puts on the expander's pins."""
        cold, unbiased = self._sense()
        levels = int(self._interlock_closed) << LINE_INTERLOCK | int(self.tripped) << LINE_TRIPPED
        levels |= int(self._cover_closed) << LINE_COVER
        return levels | int(cold) << LINE_CRYOSTAT | int(unbiased) << LINE_UNBIASED

    def lines(self, levels: int) -> None:
        """The expander's pins have changed."""
        self.poll()
        changed = levels ^ self._lines
        self._lines = levels
        toggled = changed >> LINE_WATCHDOG & 1
        raised = changed & levels & (1 << LINE_LASER | 1 << LINE_HEATER)
        if toggled or raised:  # the first enable starts a full interval
            self._since = self._clock.now()
        if self.tripped and toggled and not self._enabled():
            self.tripped = False
        self._apply()

    def poll(self) -> None:
        """Trip if the time is up."""
        now = self._clock.now()
        if now - self._polled > self.stall_s:
            # The emulator itself stood still: nobody could have toggled the line meanwhile.
            self._since += now - self._polled
        self._polled = now
        due = self._clock.now() - self._since > self._hold_s and not self.trouble.has("never")
        if due and not self.tripped and self._enabled():
            self.tripped = True
            self.trips += 1
            self._apply()

    def _enabled(self) -> bool:
        return bool(self._lines & (1 << LINE_LASER | 1 << LINE_HEATER))

    def _apply(self) -> None:
        closed = self._interlock_closed and self._cover_closed
        laser = bool(self._lines >> LINE_LASER & 1) and closed and not self.tripped
        heater = bool(self._lines >> LINE_HEATER & 1) and not self.tripped
        if self._applied == (laser, heater):
            return
        before, self._applied = self._applied, (laser, heater)
        if before is None or before[0] != laser:
            self._set_laser_enable(laser)
        if before is None or before[1] != heater:
            self._set_heater_rail(heater)
