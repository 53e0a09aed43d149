"""Deterministic CBOR (RFC 8949, 4.2) out, and a strict reader for bytes from somebody who is not trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Never

import cbor2

MAX_DEPTH = 8
# Major types: byte and text strings; arrays and maps, and how many items are inside for each of their length.
_STRINGS, _INSIDE = (2, 3), {4: 1, 5: 2}


class Malformed(ValueError):
    """Not the CBOR that was expected; the message says what is wrong and repeats nothing of the content."""


def encode(value: object) -> bytes:
    """Deterministic encoding: shortest forms, definite lengths, sorted keys."""
    return cbor2.dumps(value, canonical=True)


def _refuse_tag(*_: object) -> Never:
    raise Malformed("a tagged value")


# cbor2 would build dates, regular expressions, shared references, ...; none of them has a place in our messages.
_TAGS = (*range(2, 6), *range(0, 2), 25, *range(28, 31), *range(35, 38), 52, 54, 100, 256, 258, 260, 261, 1004, 43000)
_REFUSED: Mapping[int, Any] = dict.fromkeys(_TAGS, _refuse_tag)


def check_form(data: bytes, most: int) -> None:
    """Raises Malformed unless the data are one whole value of at most `most` items and nothing after it.

    An item is an object, many times larger than its bytes may be. Reads heads only, so it costs next to nothing where
    long strings are all that is large.
    """
    at, end, due = 0, len(data), 1
    while due:
        if at >= end:
            raise Malformed("cut short")
        kind, low = data[at] >> 5, data[at] & 31
        if low >= 28:
            raise Malformed("an indefinite length or a reserved head")
        width = 0 if low < 24 else 1 << (low - 24)
        value = int.from_bytes(data[at + 1 : at + 1 + width], "big") if width else low
        at += 1 + width
        if kind in _STRINGS:
            at += value
        due += _INSIDE.get(kind, 0) * value - 1
        most -= 1
        if due > most:
            raise Malformed("too many data items")
    if at != end:
        raise Malformed("bytes after the end" if at < end else "cut short")


def decode(data: bytes) -> object:
    """Plain CBOR without tags, indefinite lengths or repeated keys, nested at most `MAX_DEPTH` deep.

    Memory can be seventy times the size of the data: bound the size, or call `check_form` before. Raises Malformed.
    """
    try:
        return cbor2.loads(
            data,
            tag_hook=_refuse_tag,
            semantic_decoders=_REFUSED,
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError) as e:
        raise Malformed(f"not acceptable CBOR: {type(e).__name__}") from None


def decode_deterministic(data: bytes) -> object:
    """As `decode`, and the bytes must be the one deterministic encoding of what they mean. Raises Malformed."""
    value = decode(data)
    if encode(value) != data:
        raise Malformed("not in deterministic encoding")
    return value
