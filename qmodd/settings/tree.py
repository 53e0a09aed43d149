"""The tree of settings of one kind of module, read from the models of the configuration.

A path names section and key: `keys.lifetime_s`. Texts and files are no settings: they name things of the host.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from qmodd.config import Config
from qmodd.messages import Limit, Role
from qmodd.settings.catalogue import CATALOGUE, UNLISTED, Applies, SafeSide, Side

Value = bool | int | float | str
Kind = Literal["number", "integer", "boolean", "choice"]

# Serial number, role and directory make the module what it is.
NOT_SETTINGS = ("module",)
# The longest first: `tec_kp_a_per_k` ends in `_k`, too.
UNITS = {
    "_a_per_k": "A/K",
    "_c_per_s": "K/s",
    "_bits": "bit",
    "_slots": "slots",
    "_dbm": "dBm",
    "_deg": "deg",
    "_rpm": "rpm",
    "_hz": "Hz",
    "_ps": "ps",
    "_a": "A",
    "_c": "C",
    "_h": "h",
    "_k": "K",
    "_s": "s",
    "_w": "W",
}


class NotAllowed(Exception):
    """A value that is not taken: `code` for programs, the text for people, `limit` where one was met."""

    def __init__(self, code: str, message: str, limit: Limit | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.limit = limit


@dataclass(frozen=True)
class Leaf:
    """One setting. `low`, `high` are allowed, `above`, `below` are not any more; absent: no limit."""

    path: str
    kind: Kind
    unit: str
    applies: Applies
    roles: tuple[Role, ...]
    description: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Value, ...] = ()
    safe: SafeSide | None = None

    @property
    def section(self) -> str:
        return self.path.partition(".")[0]

    @property
    def name(self) -> str:
        return self.path.partition(".")[2]

    def limits(self, file: Value) -> tuple[float | None, float | None]:
        """(low, high) that may be set when the file says `file`: of a safety limit only the safe side of it."""
        if self.safe is None or isinstance(file, str | bool):
            return self.low, self.high
        return (self.low, file) if self.safe == "lower" else (file, self.high)

    def check(self, value: Any, file: Value) -> Value:
        """The value as the configuration holds it. Raises NotAllowed with value, unit and limit."""
        if self.applies == "file":
            raise NotAllowed("file_only", f"{self.path} can be set in the configuration file only; it is {file}")
        if self.kind in ("number", "integer"):
            return self._number(value, file)
        found = _exact(value, self.choices if self.kind == "choice" else (False, True))
        if found is None:
            allowed = ", ".join(str(c) for c in self.choices) if self.kind == "choice" else "true or false"
            raise NotAllowed("bad_arguments", f"{self.path} = {shown(value)}: {allowed} is allowed")
        return found

    def _number(self, value: Any, file: Value) -> Value:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise NotAllowed("bad_arguments", f"{self.path} = {shown(value)}: {_article(self.kind)} is wanted")
        low, high = self.limits(file)
        limit = Limit(output=self.path, value=float(value), low=low, high=high, unit=self.unit)
        try:
            found: Value = _adapter(self.path).validate_python(value, strict=True)
        except ValidationError as e:
            if e.errors()[0]["type"].startswith(("int", "float")):
                text = f"{self.path} = {shown(value)}: {_article(self.kind)} is wanted"
                raise NotAllowed("bad_arguments", text) from None
            raise NotAllowed("out_of_range", self._beyond(value, file), limit) from None
        if (low is not None and value < low) or (high is not None and value > high):
            raise NotAllowed("out_of_range", self._beyond(value, file), limit)
        return found

    def _beyond(self, value: float, file: Value) -> str:
        unit = f" {self.unit}" if self.unit else ""
        text = f"{self.path} = {value:g}{unit}: {self.allowed(*self.limits(file))}{unit} is allowed"
        if self.safe is not None:
            text += f"; a safety limit is only set {self.safe} than the file's {file:g}{unit}"
        return text

    def allowed(self, low: float | None, high: float | None) -> str:
        """The limits in words."""
        if low is not None and high is not None:
            return f"{low:g} to {high:g}"
        words = {"above": self.above, "at least": low, "below": self.below, "at most": high}
        return " and ".join(f"{word} {limit:g}" for word, limit in words.items() if limit is not None) or "any number"


def tree(side: Side) -> Mapping[str, Leaf]:
    """All settings of this kind of module, by path."""
    return _trees()[side]


def value_of(config: Config, path: str) -> Value:
    """What a configuration says."""
    section, _, name = path.partition(".")
    found: Value = getattr(getattr(config, section), name)
    return found


def unknown(path: str, side: Side) -> NotAllowed:
    """Why there is no such setting here, with what may have been meant."""
    if path in _trees()["bob" if side == "alice" else "alice"]:
        other = "receiver (bob)" if side == "alice" else "transmitter (alice)"
        return NotAllowed("unknown_setting", f"{path} is a setting of the {other}; this module does not use it")
    near = difflib.get_close_matches(path, tree(side), 3) or [p for p in tree(side) if p.endswith(f".{path}")]
    meant = f"; close to it: {', '.join(near)}" if near else "; `settings/#` lists all of them"
    return NotAllowed("unknown_setting", f"no setting {path[:64]!r}{meant}")


def shown(value: Any) -> str:
    """For an error: short, whatever was sent."""
    if isinstance(value, str | int | float | bool) or value is None:
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"a {type(value).__name__}"


@cache
def _trees() -> Mapping[Side, Mapping[str, Leaf]]:
    found: dict[Side, dict[str, Leaf]] = {"alice": {}, "bob": {}}
    for leaf in _leaves():
        only = CATALOGUE.get(leaf.path, UNLISTED).only
        for side in found:
            if only in (None, side):
                found[side][leaf.path] = leaf
    return found


def _leaves() -> Iterator[Leaf]:
    for section, info in Config.model_fields.items():
        model = info.annotation
        if section in NOT_SETTINGS or not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        for name, schema in model.model_json_schema()["properties"].items():
            if (kind := _kind(schema)) is not None:
                yield _leaf(f"{section}.{name}", kind, schema)


def _kind(schema: Mapping[str, Any]) -> Kind | None:
    if "enum" in schema:
        return "choice"
    kind = schema.get("type")
    return kind if kind in ("number", "integer", "boolean") else None


def _leaf(path: str, kind: Kind, schema: Mapping[str, Any]) -> Leaf:
    entry = CATALOGUE.get(path, UNLISTED)
    return Leaf(
        path,
        kind,
        next((unit for suffix, unit in UNITS.items() if path.endswith(suffix)), "") if kind != "boolean" else "",
        entry.applies,
        entry.roles,
        entry.description,
        schema.get("minimum"),
        schema.get("maximum"),
        schema.get("exclusiveMinimum"),
        schema.get("exclusiveMaximum"),
        tuple(schema.get("enum", ())),
        entry.safe,
    )


@cache
def _adapter(path: str) -> TypeAdapter[Any]:
    section, _, name = path.partition(".")
    model = Config.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    info = model.model_fields[name]
    wanted: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    return TypeAdapter(wanted)


def _exact(value: Any, allowed: tuple[Value, ...]) -> Value | None:
    """The allowed value that is the same in type as well: `1` is not `true`."""
    return next((a for a in allowed if type(a) is type(value) and a == value), None)


def _article(kind: Kind) -> str:
    return "an integer" if kind == "integer" else "a number"
