"""numba where it is installed, plain Python where it is not. Kernels are typed by hand and stay small and pure."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

COMPILED: bool = importlib.util.find_spec("numba") is not None


class Jit(Protocol):
    """`numba.njit` as the kernels use it: called with options, it gives a decorator."""

    def __call__(self, **options: Any) -> Callable[[F], F]: ...


def python_of(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The uncompiled function behind a kernel."""
    return getattr(kernel, "py_func", kernel)


def plain(**_: Any) -> Callable[[F], F]:
    """Stands in for `numba.njit`: leaves the function as it is."""

    def leave(function: F) -> F:
        return function

    return leave


def select(compiled: bool) -> Jit:
    """The compiler to use. Raises ModuleNotFoundError when numba is asked for and absent."""
    if not compiled:
        return plain
    compiler: Jit = importlib.import_module("numba").njit
    return compiler


njit: Jit = select(COMPILED)
