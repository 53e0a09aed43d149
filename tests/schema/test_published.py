"""The document on `schema` and its pages: joined again it is the one that was printed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.messages import SchemaIndex
from qmodd.outbox import Outbox
from qmodd.schema import asyncapi
from qmodd.schema.published import PAGE_BYTES, DoesNotMatch, joined, publish, published


def pages_of(topics: dict[str, bytes]) -> dict[int, bytes]:
    return {int(t.removeprefix("schema/")): p for t, p in topics.items() if t != "schema"}


@given(st.integers(2, 5 * PAGE_BYTES))
def test_pages_joined_are_the_document(size: int) -> None:
    document = b"x" * size
    topics = published(document)
    index = SchemaIndex.model_validate_json(topics["schema"])
    assert all(0 < len(p) <= PAGE_BYTES for t, p in topics.items() if t != "schema")
    assert (index.bytes, index.pages) == (size, len(topics) - 1)
    assert joined(index, pages_of(topics)) == document


def test_pages_of_another_version_are_noticed() -> None:
    topics = published(b"a" * (2 * PAGE_BYTES))
    index = SchemaIndex.model_validate_json(topics["schema"])
    with pytest.raises(DoesNotMatch, match="another version"):
        joined(index, {1: topics["schema/1"]})
    with pytest.raises(DoesNotMatch):
        joined(index, {1: topics["schema/1"], 2: b"b" * PAGE_BYTES})


def test_what_is_retained_is_what_is_printed() -> None:
    outbox = Outbox(None)
    publish(outbox)
    there = outbox.retained()
    index = SchemaIndex.model_validate_json(there["schema"])
    assert json.loads(joined(index, pages_of(there))) == asyncapi.document()
    assert index.sha256 == asyncapi.digest()
    outbox.close()


def test_told_once_and_pages_of_a_longer_one_are_cleared() -> None:
    outbox = Outbox(None)
    for suffix, payload in published(b"x" * (20 * PAGE_BYTES), "0.0.9").items():
        outbox.put(suffix, payload, retain=True, kind="state")
    told: list[tuple[str, bytes]] = []
    outbox.taps.append(lambda suffix, payload, _retain: told.append((suffix, payload)))
    publish(outbox)
    assert dict(told)["schema/20"] == b""
    assert {t for t, p in outbox.retained().items() if p} == set(published(asyncapi.encoded()))
    told.clear()
    publish(outbox)
    assert told == []
    outbox.close()
