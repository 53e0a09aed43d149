"""docs/reference/keys.md against the states of a key and the record of a block."""

from __future__ import annotations

import re
from dataclasses import fields

from qmodd.keys.records import MAY_COME_FROM, BlockRecord, KeyState
from tests.docs.pages import DOCS, code, rows, sections

PAGE = DOCS / "reference" / "keys.md"


def test_states_and_where_they_come_from() -> None:
    documented = {
        code(s): set(re.findall(r"`(\w+)`", sources)) for s, sources, _ in rows(sections(PAGE)["States of a key"])
    }
    assert documented == {str(s): {str(x) for x in MAY_COME_FROM.get(s, ())} for s in KeyState}


def test_fields_of_a_block_record() -> None:
    assert [code(r[0]) for r in rows(sections(PAGE)["Record of a block"])] == [f.name for f in fields(BlockRecord)]
