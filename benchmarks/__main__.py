"""`python -m benchmarks [NAME...] [--json]`: what is measured, beside its limit and beside what it is compared with."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from benchmarks.measure import Mismatch, Progress, Result, silent

# Name -> module with `run() -> Iterable[Result]`; one that takes `progress` tells how far it is. The first ones take
# seconds, `scheduler` a minute in real time, `calibration`, `selftest`, `delivery` some minutes, `lock` many minutes.
NAMES = (
    "acceptance",
    "sifting",
    "ldpc",
    "amplification",
    "clicks",
    "bus",
    "scheduler",
    "calibration",
    "selftest",
    "swap",
    "lock",
    "safety",
    "keys",
    "mqtt",
    "hostile",
    "delivery",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a limit is not kept or code and reference disagree, 2 wrong usage."""
    p = parser()
    arguments = p.parse_args(argv)
    if unknown := sorted(set(arguments.names) - set(NAMES)):
        p.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    begun = time.perf_counter()
    results: list[Result] = []

    def show(result: Result) -> None:
        results.append(result)
        sys.stderr.write(line(result) + "\n")
        sys.stderr.flush()

    try:
        measure(arguments.names or NAMES, show)
    except Mismatch as e:
        sys.stderr.write(f"benchmarks: {e}\n")
        return 1
    if arguments.json:
        sys.stdout.write(json.dumps(report(results, time.perf_counter() - begun)) + "\n")
    return 0 if all(r.ok for r in results) else 1


def measure(
    names: Iterable[str], show: Callable[[Result], None], progress: Callable[[str], Progress] = lambda _name: silent
) -> None:
    """Run each and show every result as it comes; `progress` gives a benchmark what it tells its progress to.

    Raises Mismatch.
    """
    for name in names:
        run = importlib.import_module(f"benchmarks.{name}").run
        takes = "progress" in inspect.signature(run).parameters
        for result in run(progress=progress(name)) if takes else run():
            show(result)


def report(results: Sequence[Result], seconds: float) -> dict[str, object]:
    """For JSON."""
    return {"results": [r.as_dict() for r in results], "seconds": round(seconds, 1), **host()}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures each part beside its limit and a reference in the same run. `qmodd bench` is the same.",
        epilog="example: python -m benchmarks ldpc --json",
    )
    p.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default all)")
    p.add_argument("--json", action="store_true", help="one JSON object as the last line on stdout")
    return p


def line(result: Result) -> str:
    """One result for people."""
    text = f"{result.name:<18} {result.value:>9.4g} {result.unit:<15}"
    if result.limit is not None:
        text += f" {'ok' if result.ok else 'NOT OK'}: {limit(result)}"
    if result.reference is not None and result.ratio is not None:
        text += f" reference {result.reference:>9.4g} ({result.reference_name})  ratio {result.ratio:.3g}"
    if result.detail:
        text += "  " + ", ".join(f"{k} {v:.4g}" for k, v in result.detail.items())
    return f"{text}  {result.note}" if result.note else text


def limit(result: Result) -> str:
    """What the value must keep, in words."""
    if isinstance(result.limit, tuple):
        return f"{result.limit[0]:g} to {result.limit[1]:g}"
    return "" if result.limit is None else f"at {'most' if result.less_is_better else 'least'} {result.limit:g}"


def host() -> dict[str, str | int | None]:
    """What the numbers depend on."""
    return {"machine": platform.machine(), "python": platform.python_version(), "cpus_count": os.cpu_count()}


if __name__ == "__main__":
    sys.exit(main())
