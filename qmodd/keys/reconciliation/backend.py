"""Which of the two decoders runs here: `vector` where it is proven (x86-64 with numba), else `portable`.

They give the same bits, so the two modules of a pair need not agree on it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib import import_module
from typing import Any

from qmodd.keys.jit import COMPILED

NAMES = ("vector", "portable")
# For tests and for a machine on which the choice below turns out wrong.
VARIABLE = "QMODD_LDPC"


def chosen(name: str | None = None) -> str:
    """`name`, else what the environment says, else what fits the machine. Raises ValueError on an unknown name."""
    name = name or os.environ.get(VARIABLE) or _fitting()
    if name not in NAMES:
        raise ValueError(f"no LDPC decoder {name!r}; there are {', '.join(NAMES)}")
    return name


def _fitting() -> str:
    return "vector" if COMPILED and platform.machine().lower() in ("x86_64", "amd64") else "portable"


def min_sum(name: str | None = None) -> Callable[..., Any]:
    """The decoding loop (arguments as in `portable.min_sum`); `vector` imports numba here and not before."""
    function: Callable[..., Any] = import_module(f"qmodd.keys.reconciliation.{chosen(name)}").min_sum
    return function
