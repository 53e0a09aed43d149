"""`qmodctl watch`: one module or many, live in the terminal, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.terminal_theme import MONOKAI

from qmodd.ctl_client import Session
from qmodd.ctl_seen import WANTED, Fleet
from qmodd.ctl_watch_view import WatchView

REFRESH_S = 0.5


def add_watch_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """The parser of `watch`."""
    watch = commands.add_parser(
        "watch",
        parents=[common],
        help="modules, live",
        epilog="example: qmodctl watch QM-A-0001 QM-B-0001",
    )
    watch.add_argument("modules", nargs="*", metavar="module", help="these; none: all of the broker")
    watch.add_argument("--seconds", type=float, metavar="S", help="end after so long, else at Ctrl-C")
    watch.add_argument("--svg", type=Path, metavar="FILE", help="at the end, write what was shown as a picture")


async def run_watch(s: Session) -> int:
    """Raises LinkDown, CtlError for a module that is not known."""
    fleet, clock = Fleet(), s.ctl.clock

    def hear(topic: str, payload: bytes) -> None:
        serial = fleet.hear(topic, payload, clock.monotonic())
        if s.as_json and serial is not None:
            sys.stdout.write(json.dumps(fleet.views.modules[serial].summary()) + "\n")
            sys.stdout.flush()

    listening = _for(s, s.ctl.watch(s.arguments.modules, WANTED, hear))
    if s.as_json:
        await listening
        return 0
    console = Console()
    view = WatchView(fleet, clock)
    try:
        with Live(view, console=console, auto_refresh=False, screen=console.is_terminal, transient=False) as live:
            await _beside(listening, live)
    finally:
        # The screen of the terminal is as it was before: what was seen last stays below it.
        if console.is_terminal:
            console.print(view)
        if s.arguments.svg is not None:
            _picture(view, console.width, s.arguments.svg)
    return 0


async def _for(s: Session, watching: Any) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(s.arguments.seconds):
            await watching


async def _beside(listening: Any, live: Live) -> None:
    """Draw while it listens. A failure of it is raised as it is."""
    task = asyncio.ensure_future(listening)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=REFRESH_S)
            live.refresh()
    finally:
        task.cancel()
        await asyncio.wait({task})
    task.result()


def _picture(view: WatchView, width: int, path: Path) -> None:
    recorder = Console(
        record=True, width=max(80, width), file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    recorder.print(view)
    drawn = recorder.export_svg(title="qmodctl watch", theme=MONOKAI)
    # The reader's own monospaced font does; nothing is fetched from elsewhere.
    path.write_text(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.S), encoding="utf-8")
