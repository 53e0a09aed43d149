"""The key engine: everything that its figures are stated for, room by room.

Each room's rows are a module of their own, which may also be run alone: `python -m benchmarks.keys NAME`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from benchmarks.measure import Progress, Result, silent

# Reconciliation, the other kernels, the receiver's whole chain, key rates against theory, attacks on the channel.
ROOMS = ("keys_ldpc", "keys_kernels", "keys_chain", "keys_rate", "keys_attacks")


def rooms(names: Sequence[str] = ROOMS) -> list[str]:
    """Those that this checkout has."""
    return [name for name in names if find_spec(f"benchmarks.{name}") is not None]


def rows(progress: Progress = silent, names: Sequence[str] = ROOMS) -> Iterator[Result]:
    """Every row of every room, in this order."""
    here = rooms(names)
    for k, name in enumerate(here):

        def part(fraction: float, text: str, k: int = k, name: str = name) -> None:
            progress((k + fraction) / len(here), f"{name}: {text}")

        yield from importlib.import_module(f"benchmarks.{name}").rows(part)


def run(progress: Progress = silent) -> Iterator[Result]:
    """For `qmodd bench keys`."""
    return rows(progress)


if __name__ == "__main__":
    from benchmarks.__main__ import line

    if unknown := set(sys.argv[1:]) - set(ROOMS):
        sys.exit(f"no room {min(unknown)!r}; there are {', '.join(ROOMS)}")
    for row in rows(names=sys.argv[1:] or ROOMS):
        print(line(row), flush=True)
