"""The document as it is retained on `schema` and `schema/<page>`: an index with the digest, and pages that pass every
common broker's limit of a packet."""

from __future__ import annotations

import hashlib

from qmodd import __version__
from qmodd.messages import SchemaIndex
from qmodd.outbox import Outbox
from qmodd.schema import asyncapi

# Below the 128 KiB of the strictest hosted brokers, with room for topic and properties.
PAGE_BYTES = 100_000


class DoesNotMatch(Exception):
    """Pages that are not the document of their index: some are missing, or of another version."""


def published(document: bytes, version: str = __version__) -> dict[str, bytes]:
    """Payloads by topic below the module's root."""
    pages = [document[i : i + PAGE_BYTES] for i in range(0, len(document), PAGE_BYTES)]
    index = SchemaIndex(
        asyncapi=asyncapi.VERSION,
        version=version,
        sha256=hashlib.sha256(document).hexdigest(),
        bytes=len(document),
        pages=len(pages),
    )
    return {**{f"schema/{n}": page for n, page in enumerate(pages, 1)}, "schema": index.payload()}


def joined(index: SchemaIndex, pages: dict[int, bytes]) -> bytes:
    """The document again. Raises DoesNotMatch."""
    whole = b"".join(pages.get(n, b"") for n in range(1, index.pages + 1))
    if hashlib.sha256(whole).hexdigest() != index.sha256:
        raise DoesNotMatch(f"{len(whole)} of {index.bytes} bytes, or another version's: read the topics again")
    return whole


def publish(outbox: Outbox) -> None:
    """What is not retained yet; pages of a longer document before are cleared."""
    wanted, there = published(asyncapi.encoded()), outbox.retained("schema")
    for suffix in there.keys() - wanted.keys():
        if there[suffix]:
            outbox.put(suffix, b"", retain=True, kind="state")
    for suffix, payload in wanted.items():
        if there.get(suffix) != payload:
            outbox.put(suffix, payload, retain=True, kind="state")
