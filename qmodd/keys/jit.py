"""Numba when it is installed, plain Python when it is not; and not before a kernel is really called.

Importing numba takes a third of a second and 100 MB. Core imports modules with kernels and leaves calling them to its
worker, so it must not pay for that. A kernel has `py_func`, its uncompiled self, in either case.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

COMPILED = find_spec("numba") is not None


def uncompiled(function: Any) -> Any:
    """The decorator that stands in without numba: marks the function as its own uncompiled self."""
    function.py_func = function
    return function


class Kernel:
    """A loop kernel that is compiled at its first call: no Python objects inside, lock released, cached on disk."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.py_func: Any = function
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> Any:
        return (self._compiled or self.compiled())(*arguments)

    def compiled(self) -> Any:
        """Numba's dispatcher. Kernels that this one calls by name are put in its module as dispatchers, too: numba
        resolves names where a function was defined, and knows nothing of this class."""
        if self._compiled is None:
            from numba import njit

            names = self.py_func.__globals__
            for name in self.py_func.__code__.co_names:
                if isinstance(names.get(name), Kernel):
                    names[name] = names[name].compiled()
            self._compiled = njit(nogil=True, cache=True)(self.py_func)
        return self._compiled


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a loop kernel, when it is first called."""
    return Kernel(function) if COMPILED else uncompiled(function)
