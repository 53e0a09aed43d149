"""The durable queue."""

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from qmodd.outbox import CHECKPOINT_BYTES, MAX_PAYLOAD_BYTES, Outbox, OutboxDamaged
from tests.uplink_fakes import START

BATCH = UUID(int=5)


def suffixes(outbox: Outbox) -> list[str]:
    return [row.suffix for row in outbox.pending()]


def test_truth_first_then_the_rest_in_order() -> None:
    outbox = Outbox(None)
    outbox.put("event", b"1", kind="event")
    outbox.put("keys/kms", b"2", kind="key")
    outbox.put("state", b"3", kind="state", retain=True)
    outbox.put("event", b"4", kind="event")
    assert [row.payload for row in outbox.pending()] == [b"3", b"1", b"2", b"4"]
    assert [row.payload for row in outbox.pending(2, skip={1})] == [b"3", b"2"]
    outbox.close()


def test_of_a_retained_topic_the_newest_stays_also_after_it_was_published() -> None:
    outbox = Outbox(None)
    old = outbox.put("state", b"old", kind="state", retain=True)
    new = outbox.put("state", b"new", kind="state", retain=True)
    outbox.published(old)
    assert [row.payload for row in outbox.pending()] == [b"new"]
    outbox.published(new)
    assert outbox.pending() == []
    assert outbox.retained() == {"state": b"new"}
    outbox.renew()
    assert [row.payload for row in outbox.pending()] == [b"new"]
    outbox.close()


def test_a_cleared_topic_is_forgotten_once_the_broker_knows() -> None:
    outbox = Outbox(None)
    outbox.put("alarm/x", b"{}", kind="alarm", retain=True)
    outbox.published(outbox.put("alarm/x", b"", kind="alarm", retain=True))
    outbox.renew()
    assert outbox.pending() == []
    outbox.close()


def test_a_key_leaves_on_its_receipt_only() -> None:
    outbox = Outbox(None)
    row = outbox.put("keys/kms", b"sealed", kind="key", dedupe=BATCH)
    outbox.published(row)
    assert outbox.pending() == []
    assert outbox.counts() == {"key_sent": 1}
    assert outbox.resend(row)
    assert [r.payload for r in outbox.pending()] == [b"sealed"]
    assert outbox.pending()[0].dedupe == BATCH.bytes
    outbox.delete(row)
    assert not outbox.resend(row)
    assert outbox.counts() == {}
    outbox.close()


def test_the_same_thing_is_queued_once() -> None:
    outbox = Outbox(None)
    assert outbox.put("keys/kms", b"a", kind="key", dedupe=BATCH) == outbox.put(
        "keys/kms", b"a", kind="key", dedupe=BATCH
    )
    assert len(outbox.pending()) == 1
    outbox.close()


def test_what_is_over_time_goes_but_keys_do_not() -> None:
    outbox = Outbox(None)
    soon = START + timedelta(seconds=10)
    outbox.put("event", b"1", kind="event", expiry=soon)
    outbox.put("keys/kms", b"2", kind="key", expiry=soon)
    assert outbox.expire(START) == 0
    assert outbox.expire(START + timedelta(seconds=11)) == 1
    assert suffixes(outbox) == ["keys/kms"]
    outbox.close()


@pytest.mark.parametrize(
    ("suffix", "payload", "retain"),
    [
        ("a/#", b"", False),
        ("", b"", False),
        ("x" * 201, b"", False),
        ("k", bytes(MAX_PAYLOAD_BYTES + 1), False),
        ("k", b"", True),
    ],
)
def test_what_can_never_be_published_is_refused(suffix: str, payload: bytes, retain: bool) -> None:
    outbox = Outbox(None)
    with pytest.raises(ValueError, match=r"payload|topic|retained"):
        outbox.put(suffix, payload, kind="key", retain=retain)
    outbox.close()


def test_listeners_hear_of_news_and_a_failed_transaction_leaves_nothing() -> None:
    heard: list[int] = []
    outbox = Outbox(None, [lambda: heard.append(1)])
    with contextlib.suppress(KeyError), outbox.transaction():
        outbox.put("event", b"1", kind="event")
        raise KeyError
    assert outbox.pending() == []
    assert heard == [1]
    outbox.close()


def test_the_file_is_closed_to_others_and_lives_on(tmp_path: Path) -> None:
    path = tmp_path / "state" / "outbox.sqlite"
    outbox = Outbox(path)
    outbox.put("event", b"1", kind="event")
    outbox.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Outbox(path)
    assert suffixes(again) == ["event"]
    assert again.database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    again.close()


def test_a_file_that_is_no_queue_is_named(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(OutboxDamaged, match=r"outbox\.sqlite"):
        Outbox(path)


WRITER = """
import sys
from pathlib import Path
from qmodd.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]))
n = 0
while True:
    n += 1
    outbox.put("event", str(n).encode(), kind="event")
    print(n, flush=True)
"""


@pytest.mark.processes
def test_a_kill_at_any_time_loses_nothing_that_was_put(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(25)]
        os.kill(writer.pid, signal.SIGKILL)
        told += writer.stdout.readlines()
    outbox = Outbox(path)
    kept = [int(row.payload) for row in outbox.pending()]
    assert kept == list(range(1, len(kept) + 1))
    assert len(kept) >= int(next(line for line in reversed(told) if line.endswith(b"\n")))
    assert outbox.database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    outbox.close()


def test_deleted_ciphertext_does_not_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    row = outbox.put("keys/kms", b"CIPHERTEXT" * 40, kind="key")
    outbox.delete(row)
    outbox.close()
    assert b"CIPHERTEXT" not in path.read_bytes()
    assert sqlite3.connect(path).close() is None


def test_nobody_who_puts_something_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, waited = os.fdatasync, list[str]()

    def slow(file: int) -> None:
        waited.append(threading.current_thread().name)
        real(file)

    monkeypatch.setattr(os, "fdatasync", slow)
    outbox = Outbox(tmp_path / "outbox.db")
    stop = outbox.keep_synced()
    for n in range(20):
        outbox.published(outbox.put("event", str(n).encode(), kind="event"))
        outbox.put("alarm/x", str(n).encode(), kind="alarm", retain=True)
    assert threading.current_thread().name not in waited
    stop()
    assert "outbox" in waited
    outbox.close()


def test_the_log_is_brought_into_the_file_and_does_not_grow_for_ever(tmp_path: Path) -> None:
    outbox, log = Outbox(tmp_path / "outbox.db"), tmp_path / "outbox.db-wal"
    largest = 0
    for _ in range(40):
        for _ in range(8):
            row = outbox.put("keys/kms", bytes(100_000), kind="key")
            outbox.delete(row)
        outbox.sync()
        largest = max(largest, log.stat().st_size)
    assert CHECKPOINT_BYTES < largest < 3 * CHECKPOINT_BYTES
    outbox.put("event", b"1", kind="event")
    assert [r.payload for r in outbox.pending()] == [b"1"]
    outbox.close()


def test_threads_take_turns(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")

    def work(name: str) -> None:
        for n in range(50):
            with outbox.transaction():
                outbox.put("event", f"{name}{n}".encode(), kind="event")
                outbox.put("event", f"{name}{n}".encode(), kind="event")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    payloads = [row.payload for row in outbox.pending()]
    assert len(payloads) == 300
    assert payloads[::2] == payloads[1::2]  # no transaction came between the halves of another
    outbox.close()


def test_a_held_row_is_told_to_nobody_until_it_is_released(tmp_path: Path) -> None:
    heard: list[int] = []
    outbox = Outbox(tmp_path / "outbox.db", [lambda: heard.append(1)])
    row = outbox.put("keys/kms", b"sealed", kind="key", held=True)
    assert outbox.pending() == heard == []
    outbox.renew()
    assert outbox.pending() == []
    assert outbox.release([row, row + 1]) == 1
    assert [r.id for r in outbox.pending()] == [row]
    assert outbox.release([row]) == outbox.release() == 0
    outbox.close()
