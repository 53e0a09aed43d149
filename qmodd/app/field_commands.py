"""Commands for whoever stands in front of the rack: which module is this, and make it blink."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drivers.errors import DriverError
from qmodd.requests import Arguments, Handler, Refusal

if TYPE_CHECKING:
    from qmodd.app.wiring import Wiring

BLINK_S = 0.5
MOST_S = 3600.0
DEFAULT_S = 60.0


@dataclass
class Locate:
    """The locate LED: blinks until `until_s`, dark after that. It is a line of the platform of its own; nothing that
    keys rest on knows of it."""

    wiring: Wiring
    until_s: float = 0.0
    why_not: str = ""
    _lit: bool = False

    def ask(self, seconds: float) -> None:
        """From now on for so long; 0 ends it."""
        self.until_s, self.why_not = self.wiring.clock.monotonic() + seconds, ""

    async def run(self) -> None:
        """Part of core's task tree; rests while nobody asks. A line that cannot be written is said, and left alone."""
        while True:
            await self._step()
            await asyncio.sleep(BLINK_S)

    async def _step(self) -> None:
        wanted = not self._lit if self.wiring.clock.monotonic() < self.until_s else False
        if wanted == self._lit:
            return
        try:
            await self.wiring.module.platform.write("led", wanted)
        except (DriverError, LookupError, ValueError) as e:
            self.until_s, self.why_not = 0.0, str(e)
            self.wiring.events.record("locate.failed", {"why": str(e)[:480]})
            self._lit = False
            return
        self._lit = wanted


def field_handlers(wiring: Wiring) -> Mapping[str, Handler]:
    """By command name."""

    async def start_locate(arguments: Arguments) -> dict[str, Any]:
        """Blink for `seconds` (default 60; 0 ends it)."""
        unknown = sorted(set(arguments) - {"seconds"})
        if unknown:
            raise Refusal("bad_arguments", f"unknown argument {unknown[0]!r}; allowed: seconds")
        seconds = arguments.get("seconds", DEFAULT_S)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MOST_S:
            raise Refusal("bad_arguments", f"seconds = {seconds!r}: 0 to {MOST_S:g} is allowed")
        wiring.locate.ask(float(seconds))
        wiring.events.record("locate.asked", {"seconds": float(seconds)})
        return {"controller": wiring.config.module.serial, "assembly": wiring.bay.serial, "blinks_s": float(seconds)}

    async def fru(arguments: Arguments) -> dict[str, Any]:
        """What the EEPROM said when the module was identified."""
        if arguments:
            raise Refusal("bad_arguments", f"unknown argument {sorted(arguments)[0]!r}; allowed: none")
        if wiring.bay.assembly is None:
            raise Refusal("wrong_state", "no module has been identified yet")
        return {**wiring.bay.report(), "known": list(wiring.bay.library.known()), "out": wiring.bay.out}

    return {"locate": start_locate, "fru": fru}
