"""docs/reference/service-channel.md lists every message of the channel with its fields, in order."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from qmodd.keys import protocol
from qmodd.keys.fields import ProtocolError
from qmodd.keys.protocol import BlockMessage, HandoverMessage, Message, decode, encode
from tests.docs.pages import DOCS, code, rows, sections

PAGE = DOCS / "reference" / "service-channel.md"
MESSAGES = {
    n: m
    for n, m in vars(protocol).items()
    if isinstance(m, type) and issubclass(m, Message) and m not in (Message, BlockMessage, HandoverMessage)
}


def test_every_message_with_type_and_fields() -> None:
    documented = [
        (code(t), code(name), re.findall(r"`(\w+)`", named))
        for t, name, _, named, _ in rows(sections(PAGE)["Messages"])
    ]
    wanted = [(f"0x{m.TYPE:02X}", n, [f.name for f in fields(m)]) for n, m in MESSAGES.items()]  # type: ignore[arg-type]
    assert documented == sorted(wanted, key=lambda w: int(w[0], 16))


def test_order_names_only_messages() -> None:
    page = PAGE.read_text()
    order = page[page.index("## Order") : page.index("## When the channel")]
    block = order[order.index("```") : order.rindex("```")]
    named = {w for w in re.findall(r"\b[A-Z][a-zA-Z]+\b", block) if len(w) > 1 and not w.isupper()}
    assert named <= set(MESSAGES)
    assert {n for n, m in MESSAGES.items() if issubclass(m, BlockMessage)} - {"Abort"} <= named


def test_a_frame_is_a_type_byte_and_an_array() -> None:
    message = protocol.Stop("enough")
    assert encode(message) == b"\x04\x81\x66enough"
    with pytest.raises(ProtocolError):
        decode(b"\x04\x80")
