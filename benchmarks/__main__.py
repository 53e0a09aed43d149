"""`python -m benchmarks [NAME...] [--json]`: what is fast, beside what it is compared with."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence

from benchmarks.measure import Mismatch, Result

# Name -> module with `run() -> list[Result]`.
NAMES = ("acceptance", "sifting", "ldpc", "amplification", "clicks", "bus")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 code and reference disagree, 2 wrong usage."""
    p = parser()
    arguments = p.parse_args(argv)
    if unknown := sorted(set(arguments.names) - set(NAMES)):
        p.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    begun = time.perf_counter()
    results: list[Result] = []
    try:
        for name in arguments.names or NAMES:
            for result in importlib.import_module(f"benchmarks.{name}").run():
                results.append(result)
                sys.stderr.write(line(result) + "\n")
                sys.stderr.flush()
    except Mismatch as e:
        sys.stderr.write(f"benchmarks: {e}\n")
        return 1
    if arguments.json:
        report = {"results": [r.as_dict() for r in results], "seconds": round(time.perf_counter() - begun, 1), **host()}
        sys.stdout.write(json.dumps(report) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures each part beside a reference in the same run; best of several runs.",
        epilog="example: python -m benchmarks ldpc --json",
    )
    p.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default all)")
    p.add_argument("--json", action="store_true", help="one JSON object as the last line on stdout")
    return p


def line(result: Result) -> str:
    """One result for people."""
    text = f"{result.name:<18} {result.value:>9.4g} {result.unit:<15}"
    if result.reference is not None and result.ratio is not None:
        text += f" reference {result.reference:>9.4g} ({result.reference_name})  ratio {result.ratio:.3g}"
    if result.detail:
        text += "  " + ", ".join(f"{k} {v:.4g}" for k, v in result.detail.items())
    return text


def host() -> dict[str, str | int | None]:
    """What the numbers depend on."""
    return {"machine": platform.machine(), "python": platform.python_version(), "cpus_count": os.cpu_count()}


if __name__ == "__main__":
    sys.exit(main())
