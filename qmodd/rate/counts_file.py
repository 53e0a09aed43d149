"""A block's counts and parameters from a JSON or TOML file: every input of the bound by its name, none assumed."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qmodd.keys.counts import BlockCounts
from qmodd.keys.estimation import KeyLength, Proof, key_length_interval

Count = Annotated[int, Field(strict=True, ge=0, le=10**15)]
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]
Counts = Annotated[list[Count], Field(min_length=2, max_length=3)]


class BadCounts(ValueError):
    """A counts file that cannot be used: one line a fault with file, field, value and what is allowed."""


class CountsFile(BaseModel):
    """`mu`: per intensity, brightest first, a mean photon number or its calibrated interval [low, high]."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    proof: Proof
    mu: Annotated[list[float | Interval], Field(min_length=2, max_length=3)]
    p_mu: Annotated[list[float], Field(min_length=2, max_length=3)]
    n_z: Counts
    m_z: Counts
    n_x: Counts
    m_x: Counts
    eps_sec: Annotated[float, Field(gt=0.0, lt=1.0)]
    eps_cor: Annotated[float, Field(gt=0.0, lt=1.0)]
    leak_bits: Count

    @property
    def intervals(self) -> list[tuple[float, float]]:
        return [(m[0], m[1]) if isinstance(m, list) else (m, m) for m in self.mu]


@dataclass(frozen=True)
class Answer:
    given: CountsFile
    length: KeyLength


def evaluate(text: str, name: str) -> Answer:
    """Key length of the block in `text`, which errors call `name`. Raises BadCounts."""
    try:
        given = CountsFile.model_validate(_parsed(text, name))
    except ValidationError as e:
        raise BadCounts("\n".join(f"{name}: {_line(fault)}" for fault in e.errors())) from None
    counts = BlockCounts(tuple(given.n_z), tuple(given.m_z), tuple(given.n_x), tuple(given.m_x))
    try:
        length = key_length_interval(
            given.proof, counts, given.intervals, given.p_mu, given.eps_sec, given.eps_cor, given.leak_bits
        )
    except ValueError as e:
        raise BadCounts(f"{name}: {e}") from None
    return Answer(given, length)


def read(path: Path) -> str:
    """Raises BadCounts."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise BadCounts(f"{path}: cannot be read: {e}") from None


def _parsed(text: str, name: str) -> Any:
    """JSON if it begins like an object, else TOML."""
    try:
        return json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise BadCounts(f"{name}: neither JSON nor TOML: {e}") from None


def _line(fault: Any) -> str:
    field = ".".join(map(str, fault["loc"])) or "file"
    if fault["type"] == "missing":
        return f"{field} is missing"
    value = repr(fault["input"])
    return f"{field} = {value if len(value) <= 60 else value[:57] + '...'}: {fault['msg']}"
