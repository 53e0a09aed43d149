"""MeCom framing: ASCII requests and replies with sequence number and CRC (Meerstetter 5117; reference hardware A3, B).

`#AASSSSpayloadCCCC<CR>` is answered by `!AASSSSpayloadCCCC<CR>`; the acknowledge of a set has no payload and carries
the CRC of the request.
"""

from __future__ import annotations

from drivers.bus.crc import crc16
from drivers.errors import BusFault, Refused

END = b"\r"
ERRORS = {
    1: "command not available",
    2: "device is busy",
    3: "general communication error",
    4: "format error",
    5: "parameter not available",
    6: "parameter is read-only",
    7: "value out of range",
    8: "instance not available",
    9: "general failure",
}


def request(address: int, sequence: int, payload: str) -> bytes:
    """A complete request with CRC and terminator."""
    body = f"#{address:02X}{sequence:04X}{payload}".encode("ascii")
    return body + b"%04X" % crc16(body) + END


def match(reply: bytes, sent: bytes) -> str | None:
    """Payload of the reply to `sent`, None if it answers an earlier request.

    Raises BusFault if it is broken, Refused if it reports an error.
    """
    # Garbage in front of a reply that is whole belongs to something older.
    reply = reply[reply.rfind(b"!") :].removesuffix(END)
    if reply[:1] != b"!" or len(reply) < 11:
        raise BusFault(f"not a MeCom reply: {reply!r}")
    asked_address, asked_sequence = sent[1:3], sent[3:7]
    body, crc = reply[:-4], reply[-4:]
    acknowledges = len(body) == 7 and crc == sent[-5:-1]
    if not acknowledges and crc != b"%04X" % crc16(body):
        raise BusFault(f"wrong CRC in MeCom reply {reply!r}")
    # Address 0 is answered by whichever device is there, under its own address.
    if body[3:7] != asked_sequence or (asked_address not in (b"00", body[1:3])):
        return None
    payload = body[7:].decode("ascii", "replace")
    if payload.startswith("+"):
        code = int(payload[1:3], 16) if payload[1:3].isalnum() else 0
        raise Refused(f"error {payload}: {ERRORS.get(code, 'unknown error')}")
    return payload
