"""How `qmodd selftest` shows its work: a bar a level on a terminal, lines elsewhere; and its result as a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from qmodd.selftest.model import Finding, Report, Verdict
from qmodd.selftest.words import allowed, shown, verdict

STYLES = {Verdict.PASSED: "green", Verdict.WARNED: "yellow", Verdict.FAILED: "bold red", Verdict.SKIPPED: "dim"}


class View(Protocol):
    def say(self, text: str) -> None:
        """A step has begun."""
        ...

    def progress(self, check: str, fraction: float, message: str) -> None:
        """A check begins; `fraction` of its level is over."""
        ...


@contextmanager
def view(console: Console) -> Iterator[View]:
    if not console.is_terminal:
        yield Lines(console)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[check]}", style="dim"),
        console=console,
        transient=True,
    ) as bars:
        yield Bars(bars)


class Lines:
    """For logs and pipes: a line a step and a line a check."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def progress(self, check: str, fraction: float, message: str) -> None:
        self.say(f"  {message}: {check}")


class Bars:
    """A bar a level; the check that has begun last stands beside it."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        for task in self._tasks.values():
            self._bars.update(task, completed=1.0, check="")
        self._bars.console.print(Text(text, style="dim"), soft_wrap=True)

    def progress(self, check: str, fraction: float, message: str) -> None:
        task = self._tasks.get(message)
        if task is None:
            task = self._tasks[message] = self._bars.add_task(f"{message:24}", total=1.0, check=check)
        self._bars.update(task, completed=fraction, check=check)


def show(report: Report, console: Console, every: bool = False) -> None:
    """The verdict, the suspects, and what is not as it should be; `every` value where that is wanted."""
    style = STYLES[Verdict.PASSED if report.passed else Verdict.FAILED]
    console.print(f"[{style}]{escape(f'{report.serial}: {verdict(report)}')}[/]", soft_wrap=True)
    if len(report.suspects) > 1:
        console.print(f"to blame, the most likely first: {escape(', '.join(report.suspects))}", soft_wrap=True)
    listed = [f for f in report.findings if every or f.verdict is not Verdict.PASSED]
    if listed:
        console.print(table(listed))
    took = ", ".join(f"{name} {s:.1f} s" for name, s in report.level_seconds.items())
    if took:
        console.print(f"[dim]{took}[/]", soft_wrap=True)


def table(findings: list[Finding]) -> Table:
    """One row a finding, with its reason below."""
    golden = any(f.golden_z is not None for f in findings)
    out = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "", "value", "allowed", *(["z"] if golden else []), "part"):
        out.add_column(name, justify="right" if name in ("value", "z") else "left")
    for f in findings:
        z = [f"{f.golden_z:+.1f}" if f.golden_z is not None else ""] if golden else []
        said = f.skipped or f.hint if f.verdict is not Verdict.PASSED else ""
        check = Text(f.name).append(f"\n  {said}", style="dim") if said else Text(f.name)
        state = Text(f.verdict.value, style=STYLES[f.verdict])
        out.add_row(check, state, shown(f), allowed(f), *z, Text(f.part))
    return out
