"""Numba when it is installed, plain Python when it is not.

A kernel decorated with `kernel` has `py_func`, its uncompiled self, in either case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from numba import njit as _njit

    COMPILED = True
except ImportError:  # pragma: no cover - depends on the installation
    COMPILED = False


def uncompiled(function: Any) -> Any:
    """The decorator that stands in without numba: marks the function as its own uncompiled self."""
    function.py_func = function
    return function


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a loop kernel: no Python objects inside, releases the interpreter lock, cached on disk.

    The result has the function's signature and its attribute `py_func`.
    """
    if not COMPILED:  # pragma: no cover - depends on the installation
        return uncompiled(function)
    return _njit(nogil=True, cache=True)(function)
