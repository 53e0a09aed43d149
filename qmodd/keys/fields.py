"""Kinds of fields that a message of the service channel may have, and how each is checked when it arrives."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

MAX_TEXT = 512
MAX_ITEMS = 65_536

Pairs = tuple[tuple[float, float], ...]
InDoubt = tuple[tuple[bytes, int], ...]


class ProtocolError(Exception):
    """A message that cannot be one of ours; says what is wrong with it and repeats nothing of its content."""


def _integer(v: Any) -> int:
    if type(v) is not int or not 0 <= v < 1 << 63:
        raise ProtocolError("an integer is missing or out of range")
    return v


def _number(v: Any) -> float:
    if type(v) not in (int, float) or not isfinite(v):
        raise ProtocolError("a finite number is missing")
    return float(v)


def _text(v: Any) -> str:
    if type(v) is not str or len(v) > MAX_TEXT:
        raise ProtocolError("a text is missing or too long")
    return v


def _octets(v: Any) -> bytes:
    if type(v) is not bytes:
        raise ProtocolError("a byte string is missing")
    return v


def _flag(v: Any) -> bool:
    if type(v) is not bool:
        raise ProtocolError("a truth value is missing")
    return v


def _many(item: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def check(v: Any) -> tuple[Any, ...]:
        if type(v) is not list or len(v) > MAX_ITEMS:
            raise ProtocolError("a list is missing or too long")
        return tuple(item(x) for x in v)

    return check


def _two(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    def check(v: Any) -> tuple[Any, Any]:
        if type(v) is not list or len(v) != 2:
            raise ProtocolError("a pair is missing")
        return first(v[0]), second(v[1])

    return check


CHECK_OF: dict[Any, Callable[[Any], Any]] = {
    int: _integer,
    float: _number,
    str: _text,
    bytes: _octets,
    bool: _flag,
    tuple[int, ...]: _many(_integer),
    tuple[float, ...]: _many(_number),
    tuple[bytes, ...]: _many(_octets),
    tuple[str, ...]: _many(_text),
    Pairs: _many(_two(_number, _number)),
    InDoubt: _many(_two(_octets, _integer)),
}
