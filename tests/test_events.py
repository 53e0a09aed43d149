import json
from pathlib import Path

from qmodd.clock import SystemClock
from qmodd.events import EventLog


def test_numbers_go_on_after_a_restart_and_a_torn_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path, SystemClock(), "QM-A-0001")
    log.record("started", {"pid": 1})
    log.record("state", {"value": "ready"})
    log.close()
    with open(path, "a") as f:
        f.write('{"seq": 3, "torn')
    again = EventLog(path, SystemClock(), "QM-A-0001")
    heard = []
    again.listeners.append(heard.append)
    again.record("started")
    again.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [e["seq"] for e in lines] == [1, 2, 3]
    assert heard[0]["event"] == "started"


def test_in_memory_keeps_entries() -> None:
    log = EventLog(None, SystemClock(), "m")
    log.record("a", {"x": 1.5})
    assert log.entries[0]["x"] == 1.5
    log.close()
