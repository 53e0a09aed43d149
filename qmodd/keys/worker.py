"""What runs in the worker process: an idle-priority bench (SCHED_IDLE, nice 19) that ends with its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from typing import Any

from qmodd.keys.bench import Bench
from qmodd.randomness import SystemRandomness

_bench: Bench | None = None


def start() -> None:
    """Initialiser of the process."""
    global _bench
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.nice(19)
    # The terminal's Ctrl-C reaches the whole group; it is the parent that decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    _bench = Bench(SystemRandomness())
    _bench.warm_up()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def call(method: str, arguments: tuple[Any, ...]) -> Any:
    """One call of the bench."""
    if _bench is None:
        raise RuntimeError("the worker was not started")
    return getattr(_bench, method)(*arguments)
