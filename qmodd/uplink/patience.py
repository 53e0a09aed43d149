"""How long uplink waits before it connects to the broker again."""

from __future__ import annotations

from dataclasses import dataclass, field

from qmodd.uplink.mqtt_link import TAKEN_OVER, Backoff

# A connection that lived for so long was a good one: the next waiting time is short again.
STEADY_S = 10.0
# For who is sent away by another client of the same name: to fight for the name would help nobody. Mosquitto 2.0 does
# not say so, hence the count of connections in a row that did not live.
STAND_BACK_S = 30.0
SHORT_LIVES = 4


@dataclass
class Patience:
    """One that is accepted and closed at once counts as a failure, too: no broker is hammered."""

    backoff: Backoff
    _short: int = field(default=0, init=False)

    def wait(self, lived_s: float | None, code: int | None) -> tuple[float, bool]:
        """Seconds to wait, and whether that is for another client of the same name.

        `lived_s` of the connection that has ended, None: there was none; `code` is MQTT's reason, if one was given.
        """
        if lived_s is not None:
            self._short = self._short + 1 if lived_s < STEADY_S else 0
            if lived_s >= STEADY_S:
                self.backoff.reset()
        wait_s = self.backoff.next_s()
        if code != TAKEN_OVER and self._short < SHORT_LIVES:
            return wait_s, False
        return STAND_BACK_S + wait_s, True
