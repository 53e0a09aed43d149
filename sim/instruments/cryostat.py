"""Cryostat monitor with the Lake Shore 336 command set: IEEE-488.2 style, CR LF, no error queue (manual, chapter 6)."""

from __future__ import annotations

from collections.abc import Callable

from sim.trouble import Trouble

INVALID, UNDER, OVER, ZERO, OPEN = 1, 16, 32, 64, 128
INPUTS = "ABCD"


class Cryostat:
    """`kelvin()` is the temperature of input A. `reading_status` and `heater_status` are for scripts.

    Unknown commands are ignored without a word, as the instrument does.
    """

    def __init__(self, kelvin: Callable[[], float], serial: str) -> None:
        self._kelvin = kelvin
        self._serial = serial
        self.trouble = Trouble()
        self.reading_status = 0
        self.heater_status = 0
        self.power_on_reset()

    def power_on_reset(self) -> None:
        self._range = 1
        self._set_point_k = 2.5

    def execute(self, message: bytes) -> bytes | None:
        """One line; several commands may be joined by semicolons."""
        answers = [a for part in message.strip().split(b";") if (a := self._one(part.strip())) is not None]
        return b";".join(answers) + b"\r\n" if answers else None

    def _one(self, command: bytes) -> bytes | None:
        text = command.decode("ascii", "replace").upper()
        name, _, rest = text.partition(" ")
        argument = rest.strip() or (name[5:] if name.startswith("KRDG?") else "")
        name = "KRDG?" if name.startswith("KRDG?") else name
        if name == "*IDN?":
            return f"LSCI,MODEL336,{self._serial},2.9".encode()
        if name == "KRDG?" and argument in INPUTS:
            value = self._kelvin() if argument in ("A", "") and not self._reading() else 0.0
            return f"{value:+.5E}".encode()
        if name == "RDGST?":
            return f"{self._reading():03d}".encode()
        if name == "HTRST?":
            return str(1 if self.trouble.has("heater") else self.heater_status).encode()
        if name == "RANGE?":
            return str(self._range).encode()
        if name == "SETP?":
            return f"{self._set_point_k:+.5E}".encode()
        if name in ("RANGE", "SETP"):
            self._write(name, rest)
        return None

    def _reading(self) -> int:
        return OPEN if self.trouble.has("open") else self.reading_status

    def _write(self, name: str, rest: str) -> None:
        try:
            output, value = (float(x) for x in rest.split(","))
        except ValueError:
            return
        if output == 1 and name == "RANGE" and value in (0, 1, 2, 3):
            self._range = int(value)
        elif output == 1 and name == "SETP" and 0.0 <= value <= 400.0:
            self._set_point_k = value
