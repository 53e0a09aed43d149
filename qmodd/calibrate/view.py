"""How `qmodd calibrate` shows its work: a bar per calibration on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from calibration.context import Progress as Step
from calibration.plan import Due
from calibration.procedure import Disturbs
from qmodd.calibrate.walk import Outcome
from qmodd.report.dag import SIGNS, State
from qmodd.report.text import seconds

STYLES: Mapping[State, str] = {
    "good": "green",
    "renewed": "green",
    "redone": "cyan",
    "refused": "bold red",
    "waiting": "yellow",
    "due": "yellow",
    "unknown": "",
}
DISTURBS = {
    Disturbs.NOTHING: "nothing",
    Disturbs.KEYS: "keys stop",
    Disturbs.LINK: "keys stop on both sides",
}


class View(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, side: str, step: Step) -> None: ...
    def ended(self, side: str, outcome: Outcome) -> None: ...
    def say(self, side: str, text: str) -> None: ...


def view(console: Console, costs: Mapping[str, Mapping[str, float]]) -> View:
    """`costs`: by side, what each calibration takes, s; the time that is left is told from them."""
    return Bars(console, costs) if console.is_terminal else Lines(console)


def line(side: str, outcome: Outcome) -> Text:
    """One calibration that has ended."""
    sign, _ = SIGNS[outcome.state]
    text = Text(f"{sign} ", style=STYLES[outcome.state])
    text.append(f"{side:5} {outcome.name:18} ")
    text.append(f"{outcome.state:8}", style=STYLES[outcome.state])
    text.append(f"{outcome.seconds:7.2f} s  ")
    text.append(outcome.why, style="dim")
    return text


class Lines:
    """For logs and pipes: a line when a calibration begins, and one when it has ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, side: str, step: Step) -> None:
        if step.fraction == 0.0 and (side, step.procedure) not in self._begun:
            self._begun.add((side, step.procedure))
            self._print(Text(f"  {side:5} {step.procedure:18} begins: {step.message}"))

    def ended(self, side: str, outcome: Outcome) -> None:
        self._print(line(side, outcome))

    def say(self, side: str, text: str) -> None:
        self._print(Text(f"  {side:5} {text}"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


class _Left(ProgressColumn):
    """Seconds that are left, by what each calibration costs."""

    def render(self, task: Task) -> Text:
        left = float(task.fields.get("left", 0.0))
        return Text(f"{left:4.0f} s left" if left > 0.5 else "", style="dim")


class Bars:
    """A bar per calibration while it runs; what has ended scrolls up as a line."""

    def __init__(self, console: Console, costs: Mapping[str, Mapping[str, float]]) -> None:
        self._console = console
        self._costs = costs
        self._over: set[tuple[str, str]] = set()
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f} %"),
            _Left(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}", style="dim"),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, side: str, step: Step) -> None:
        key = (side, step.procedure)
        if step.fraction >= 1.0 and step.message in ("done", "still good"):
            self._remove(key)
            return
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = self._progress.add_task(f"{side:5} {step.procedure:18}", total=1.0, message="")
        left = self._left(side, step)
        self._progress.update(task, completed=step.fraction, message=step.message[:60], left=left)

    def ended(self, side: str, outcome: Outcome) -> None:
        self._over.add((side, outcome.name))
        self._remove((side, outcome.name))
        self._progress.console.print(line(side, outcome), soft_wrap=True)

    def say(self, side: str, text: str) -> None:
        self._progress.console.print(Text(f"  {side:5} {text}", style="dim"), soft_wrap=True)

    def _left(self, side: str, step: Step) -> float:
        own = self._costs.get(side, {})
        rest = sum(cost for name, cost in own.items() if name != step.procedure and (side, name) not in self._over)
        return rest + own.get(step.procedure, 0.0) * (1.0 - step.fraction)

    def _remove(self, key: tuple[str, str]) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            self._progress.remove_task(task)


def plan_table(side: str, due: Collection[Due], names: Collection[str]) -> Table:
    """What a walk would do, why, what it disturbs and costs."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"{side}: {len(due)} of {len(names)} due")
    for column in ("calibration", "action", "takes", "disturbs", "why"):
        table.add_column(column, justify="right" if column == "takes" else "left")
    for d in due:
        table.add_row(d.name, d.action, seconds(d.cost_s), DISTURBS[d.disturbs], d.why)
    return table
