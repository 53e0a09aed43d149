"""OIF ITLA framing: four bytes each way, a 4-bit interleaved parity (OIF-ITLA-MSA-01.3; reference hardware A4, B)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import IntEnum

from drivers.bus.serial import SerialIo
from drivers.errors import BusFault, Timeout

NOP = 0x00
PROBES = (NOP, 0x0D, 0x08, 0x30, 0x34)
"""Registers whose reading does nothing: NOP, IOCap, GenCfg, Channel, Grid."""
ERRORS = {
    0x1: "RNI: register not implemented",
    0x2: "RNW: register not writable",
    0x3: "RVE: register value out of range",
    0x4: "CIP: command in progress",
    0x5: "CII: command invalid while initialising",
    0x6: "ERE: extended address range error",
    0x7: "ERO: extended address is read-only",
    0x8: "EXF: execution failed",
    0x9: "CIE: command invalid while the output is enabled",
    0xA: "IVC: invalid configuration",
    0xF: "VSE: vendor-specific error",
}


class Status(IntEnum):
    OK = 0
    EXECUTION_ERROR = 1
    AEA = 2
    PENDING = 3


def bip4(b0: int, b1: int, b2: int, b3: int) -> int:
    """Parity over the low nibble of byte 0 and bytes 1 to 3."""
    x = (b0 & 0x0F) ^ b1 ^ b2 ^ b3
    return (x >> 4) ^ (x & 0x0F)


def request(register: int, value: int = 0, *, write: bool = False) -> bytes:
    data = (value & 0xFFFF).to_bytes(2, "big")
    low = int(write)
    return bytes([bip4(low, register, *data) << 4 | low, register, *data])


@dataclass(frozen=True)
class Reply:
    register: int
    status: Status
    value: int


def parse(data: bytes) -> Reply | None:
    """A reply, None if these four bytes are not one (parity, or bit 2 which is always 1).

    Raises BusFault if the laser saw a broken request.
    """
    if bip4(data[0], data[1], data[2], data[3]) != data[0] >> 4 or not data[0] & 0x04:
        return None
    if data[0] & 0x08:
        raise BusFault("the laser received a broken request and did not act on it")
    return Reply(data[1], Status(data[0] & 0x03), int.from_bytes(data[2:4], "big"))


class Dialogue:
    """Requests and replies on one line, kept in step.

    Replies carry a register but no sequence number. A reply that comes late could be taken for that of a later request
    to the same register. So after any failure a register is read that no unanswered request has named: the laser
    answers in order, hence everything before that answer is old. (A laser that repeats a reply which it has given
    already, unasked and within the time of a request to the same register, cannot be told by this protocol.)
    """

    def __init__(self) -> None:
        self._unanswered: set[int] = set()

    @property
    def in_step(self) -> bool:
        return not self._unanswered

    def ask(self, io: SerialIo, register: int, value: int = 0, *, write: bool = False) -> Reply:
        """One request. Raises Timeout, BusFault."""
        io.flush_input()  # nothing can be due before a request
        if self._unanswered:
            self._resynchronise(io)
            io.restart()
        return self._exchange(io, register, request(register, value, write=write))

    def _exchange(self, io: SerialIo, register: int, message: bytes) -> Reply:
        self._unanswered.add(register)
        io.write(message)
        window = io.exactly(4)
        # Bytes in front of the reply belong to something broken: slide until four of them make the reply.
        while (reply := parse(window)) is None or reply.register != register:
            window = window[1:] + io.exactly(1)
        self._unanswered.discard(register)
        return reply

    def _resynchronise(self, io: SerialIo) -> None:
        probe = next((p for p in PROBES if p not in self._unanswered), None)
        if probe is None:
            # The line has been dead for many requests. Only silence can tell that nothing is on its way any more.
            io.restart()
            self._silence(io)
            io.restart()
            probe = NOP
        self._exchange(io, probe, request(probe))
        self._unanswered.clear()

    @staticmethod
    def _silence(io: SerialIo) -> None:
        """Read until nothing comes for one reply time-out. Raises BusFault if the line babbles on."""
        with contextlib.suppress(Timeout):
            for _ in range(1024):
                io.exactly(1)
                io.restart()
            raise BusFault("the line does not fall silent")
