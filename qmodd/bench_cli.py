"""`qmodd bench`: benchmarks, each beside its limit and, where one can be had, its reference in the same run.

They live in the source tree beside the tests and are not installed with the package.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType, TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

MISSING = (
    "qmodd bench: the benchmarks are not installed with the package; run it in a checkout of the source tree "
    "(the directory that has benchmarks/)"
)


def add_parser(subparsers: Any) -> None:
    p = subparsers.add_parser(
        "bench",
        help="benchmarks, each beside its limit and a reference",
        description="Measures each part against the emulator's truth or beside a reference in the same run. Status 1: "
        "a limit is not kept.",
        epilog="example: qmodd bench calibration lock --json",
    )
    p.add_argument("names", nargs="*", metavar="NAME", help="which (default all); a wrong one lists what there is")
    p.add_argument("--json", action="store_true", help="one JSON object as the last line on stdout")
    p.set_defaults(run=command)


def command(args: argparse.Namespace) -> int:
    """Exit status: 0 done, 1 a limit is not kept or code and reference disagree, 2 wrong usage or no benchmarks."""
    program = _program()
    if program is None:
        sys.stderr.write(MISSING + "\n")
        return 2
    if unknown := sorted(set(args.names) - set(program.NAMES)):
        sys.stderr.write(f"qmodd bench: no benchmark {unknown[0]!r}; there are {', '.join(program.NAMES)}\n")
        return 2
    return run(program, args.names or program.NAMES, args.json, Console(stderr=True))


def _program() -> ModuleType | None:
    """benchmarks.__main__, from the directory that Python was started in or from the source tree."""
    try:
        return importlib.import_module("benchmarks.__main__")
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "benchmarks":
            raise
        return None


def run(program: ModuleType, names: Sequence[str], as_json: bool, errors: Console) -> int:
    """Measure, show each result as it comes, report."""
    mismatch = importlib.import_module("benchmarks.measure").Mismatch
    begun = time.perf_counter()
    results: list[Any] = []
    with Screen(errors) as screen:

        def show(result: Any) -> None:
            results.append(result)
            screen.line(program.line(result), result.ok)

        try:
            program.measure(names, show, screen.progress)
        except mismatch as e:
            screen.line(f"qmodd bench: {e}", False)
            return 1
    if as_json:
        sys.stdout.write(json.dumps(program.report(results, time.perf_counter() - begun)) + "\n")
    return 0 if all(r.ok for r in results) else 1


class Screen:
    """A bar while a benchmark tells how far it is, on a terminal; results as lines, everywhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def line(self, text: str, ok: bool) -> None:
        self._console.print(Text(text, style="" if ok else "bold red"), soft_wrap=True)

    def progress(self, name: str) -> Callable[[float, str], None]:
        """What benchmark `name` tells its progress to."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        task = self._task = self._progress.add_task(name, total=1.0, text="")
        return lambda fraction, text: self._progress.update(task, completed=fraction, text=text[:60])
