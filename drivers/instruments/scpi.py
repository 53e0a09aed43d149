"""SCPI over VISA: queries, blocks, and settings that are confirmed by the error queue."""

from __future__ import annotations

from drivers.bus.visa import VisaInstrument, VisaIo, definite_block
from drivers.errors import BusFault, Refused, Timeout
from drivers.options import identify, wrong_device
from drivers.roles import Identity

MAX_ERRORS = 32


class Scpi:
    """One instrument. Commands are given without terminator.

    A query that the instrument refuses is not answered at all; after such a Timeout the error queue is read, and what
    it holds becomes Refused.
    """

    def __init__(self, name: str, visa: VisaInstrument) -> None:
        self.name = name
        self.visa = visa
        self._suspect = True  # the queue may hold errors of something before us
        self._identity = ""

    async def identify(self, driver: str, maker: str, model: str) -> Identity:
        """Compare `*IDN?`. Raises WrongDevice."""
        expected, address = f"{maker},{model}", self.visa.address
        answer = await identify(self.name, address, expected, self.query("*IDN?"))
        fields = [field.strip() for field in answer.split(",")]
        if len(fields) != 4 or fields[:2] != [maker, model]:
            raise wrong_device(self.name, address, expected, repr(answer))
        self._identity = answer
        return Identity(driver, address, model, fields[2], fields[3])

    def known_as(self, answer: str) -> None:
        """What `*IDN?` answered when the device was opened: it may be another one than before."""
        self._identity = answer

    async def known_answer(self) -> bool:
        """For the role Probed: `*IDN?` answers what it did when the device was opened."""
        return await self.query("*IDN?") == self._identity

    async def errors(self) -> list[str]:
        """What the error queue holds, oldest first; it is empty afterwards. Raises BusFault, Timeout."""
        return await self.visa.run(_errors)

    async def query(self, command: str, *, deadline_s: float = 1.0, harmless: bool = True) -> str:
        """The answer without its newline. Raises Refused, BusFault, Timeout."""
        reply = await self._query(command.encode("ascii") + b"\n", deadline_s, harmless)
        return reply.decode("ascii", "replace").strip()

    async def query_numbers(self, command: str, count: int) -> list[float]:
        """Comma-separated numbers. Raises BusFault if there are not exactly `count`."""
        answer = await self.query(command)
        try:
            numbers = [float(x) for x in answer.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != count:
            raise BusFault(f"{self.name} at {self.visa.address}: {command} answered {answer!r}")
        return numbers

    async def query_integers(self, command: str, count: int) -> list[int]:
        """Comma-separated integers of any size. Raises BusFault if there are not exactly `count`."""
        answer = await self.query(command)
        try:
            numbers = [int(x) for x in answer.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != count:
            raise BusFault(f"{self.name} at {self.visa.address}: {command} answered {answer!r}")
        return numbers

    async def query_block(self, command: bytes, *, deadline_s: float = 2.0) -> bytes:
        """Contents of the definite-length block that answers; never repeated, since reading such data uses it up."""
        return definite_block(await self._query(command + b"\n", deadline_s, False), self.visa.lane.name)

    async def set(self, command: str, *, verify: str | None = None) -> str:
        """Send a setting, then read the error queue, then (if given) the query `verify`, all in one transaction.

        Returns the answer of `verify`, stripped. Raises Refused with the instrument's reason, BusFault, Timeout.
        """

        def work(io: VisaIo) -> str:
            if self._suspect:
                io.write(b"*CLS\n")
            self._suspect = True
            io.write(command.encode("ascii") + b"\n")
            errors = _errors(io)
            self._suspect = False
            if errors:
                raise Refused(f"{self.name} at {self.visa.address}: {command}: {errors[0]}")
            return io.query(verify.encode("ascii") + b"\n").decode("ascii", "replace").strip() if verify else ""

        return await self.visa.run(work)

    async def _query(self, message: bytes, deadline_s: float, harmless: bool) -> bytes:
        try:
            # Not repeated here: a refusal looks like silence, and waiting three times for it helps nobody.
            return await self.visa.run(lambda io: io.query(message), deadline_s=deadline_s)
        except Timeout as silence:
            try:
                errors = await self.visa.run(_errors, deadline_s=deadline_s)
            except (BusFault, Timeout):
                raise silence from None
            if errors:
                text = message[:40].decode("ascii", "replace").strip()
                raise Refused(f"{self.name} at {self.visa.address}: {text}: {errors[0]}") from silence
            if not harmless:
                raise
            return await self.visa.run(lambda io: io.query(message), deadline_s=deadline_s)
        except BusFault:
            if not harmless:
                raise
            return await self.visa.run(lambda io: io.query(message), deadline_s=deadline_s)


def _errors(io: VisaIo) -> list[str]:
    """Empty the error queue; oldest first. Raises BusFault if it is no error queue."""
    found: list[str] = []
    for _ in range(MAX_ERRORS):
        text = io.query(b"SYST:ERR?\n").decode("ascii", "replace").strip()
        code = text.split(",", 1)[0]
        if not code.lstrip("+-").isdigit():
            raise BusFault(f"SYST:ERR? answered {text!r}")
        if int(code) == 0:
            break
        found.append(text)
    return found
