"""The controller itself in numbers: what the daemon takes of it, and what is left."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from qmodd.clock import Clock

Numbers = dict[str, int | float | bool]
_STATM = Path("/proc/self/statm")


def host_numbers(clock: Clock, free: Callable[[], tuple[int, int]]) -> Numbers:
    """Of this process: `rss_bytes` resident, `cpu_s` used since its start, `threads_count`; of the machine:
    `load_1min`, `disk_free_bytes` of the state directory, `clock_synchronised`. `free` gives free and whole bytes of
    that disk."""
    return {
        "rss_bytes": _resident_bytes(),
        "cpu_s": round(time.process_time(), 3),
        "threads_count": threading.active_count(),
        "load_1min": os.getloadavg()[0],
        "disk_free_bytes": free()[0],
        "clock_synchronised": clock.utc_synchronised(),
    }


def _resident_bytes() -> int:
    # A file of the kernel's: reading it waits for nothing.
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
