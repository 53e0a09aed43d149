"""Numbers of the controller itself."""

from __future__ import annotations

from pathlib import Path

from qmodd.app.host import host_numbers
from qmodd.clock import SystemClock
from tests.docs.test_topics import documented_numbers


def test_numbers_of_this_process(tmp_path: Path) -> None:
    before = host_numbers(SystemClock(), lambda: (7, 9))
    ballast = bytearray(b"x") * 50_000_000
    sum(i * i for i in range(300_000))
    after = host_numbers(SystemClock(), lambda: (7, 9))
    assert after["rss_bytes"] - before["rss_bytes"] > 0.9 * len(ballast)
    assert after["cpu_s"] > before["cpu_s"] > 0
    assert after["disk_free_bytes"] == 7
    assert ("both", list(after)) == documented_numbers("host")
