"""Real-time priority: for one thread, and without harm where it is not granted."""

from __future__ import annotations

import os
import threading

import pytest

from qmodd.realtime import take_priority

Scheduler = tuple[int, int]


def _scheduler() -> Scheduler:
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(0).sched_priority


def _in_a_thread(priority: int) -> tuple[str | None, Scheduler, Scheduler]:
    """What was said, the thread's scheduler, and that of a thread which it started."""
    seen: list[Scheduler] = []
    said: list[str | None] = []

    def main() -> None:
        said.append(take_priority(priority))
        seen.append(_scheduler())
        child = threading.Thread(target=lambda: seen.append(_scheduler()))
        child.start()
        child.join()

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    return said[0], seen[0], seen[1]


def test_only_the_thread_that_asks_gets_it() -> None:
    why, own, child = _in_a_thread(5)
    if why is None:
        assert own == (os.SCHED_RR, 5)
    else:
        assert "LimitRTPRIO=5" in why
        assert own[1] == 0
    assert child == (os.SCHED_OTHER, 0)


def test_none_is_asked_for() -> None:
    assert _in_a_thread(0) == (None, (os.SCHED_OTHER, 0), (os.SCHED_OTHER, 0))


def test_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert "CAP_SYS_NICE" in (take_priority(7) or "")
