"""Real-time priority for the thread that runs the control loops: it gets a core as soon as it has something to do."""

from __future__ import annotations

import os


def take_priority(priority: int) -> str | None:
    """SCHED_RR for the calling thread only: processes and threads that it starts begin at normal priority.

    None, or why it could not be had; then everything runs as before, with more lateness under load. 0 asks for none.
    """
    if priority == 0:
        return None
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except (OSError, AttributeError) as e:
        return f"no real-time priority {priority}: {e}; it needs CAP_SYS_NICE or LimitRTPRIO={priority} or more"
    return None
