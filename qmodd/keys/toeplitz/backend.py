"""Which way Toeplitz products are computed here. All give the same bits, so the modules of a pair need not agree.

`vector` needs numba and carry-less multiplication (x86-64 with PCLMULQDQ, aarch64 with PMULL), `portable` numba,
`floating` nothing but numpy.
"""

from __future__ import annotations

import os
from functools import lru_cache, partial
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from qmodd.keys.jit import COMPILED
from qmodd.keys.toeplitz import field, floating, rows

Bits = npt.NDArray[np.uint8]

NAMES = ("vector", "portable", "floating")
# For tests and for a machine on which the choice below turns out wrong.
VARIABLE = "QMODD_TOEPLITZ"


class Product(Protocol):
    """See `floating.product`."""

    def __call__(self, bits: Bits, seed: bytes, m: int) -> Bits: ...


def product(name: str | None = None) -> Product:
    """By `name`, else as the environment says, else as fits the machine. Raises ValueError on an unknown name."""
    name = name or os.environ.get(VARIABLE) or _fitting()
    if name not in NAMES:
        raise ValueError(f"no Toeplitz product {name!r}; there are {', '.join(NAMES)}")
    return floating.product if name == "floating" else partial(rows.product, _module(name))


def _module(name: str) -> Any:
    """Imports numba here and not before."""
    return import_module(f"qmodd.keys.toeplitz.{name}")


@lru_cache(1)
def _fitting() -> str:
    if not COMPILED:
        return "floating"
    vector = _module("vector")
    return "vector" if vector.KIND is not None and proven(vector) else "portable"


def proven(transform: rows.Transform) -> bool:
    """Its multiplication gives the products of plain integers on this very processor."""
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 1 << 64, (2, 1, 16), np.uint64)
    left[0, 0] = right[0, 0] = (1 << 64) - 1
    out = np.zeros_like(left)
    transform.multiply(out, left, right, np.zeros((1, 1), np.int64))
    wanted = [field.multiply(int(a), int(b)) for a, b in zip(left[0], right[0], strict=True)]
    return bool(out[0].tolist() == wanted)
