"""Containers in a directory: each key in one, whenever the power goes."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections import Counter
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmodd.randomness import SeededRandomness
from qmodd.receive import Receiver, read_states
from qmodd.receiver import sink as sink_module
from qmodd.receiver.sink import FileSink, export
from tests.receiver.build import batch, key_of, notice, receiver_in


class PowerCut(BaseException):
    """Nothing after it runs."""


def sink_of(receiver: Receiver, directory: Path, size: int = 2, seed: int = 1) -> FileSink:
    sink = FileSink(directory, receiver.hand_out, SeededRandomness(seed), size)
    sink.recover()
    receiver.on_revoked = sink.revoked
    return sink


def usable(receiver: Receiver, *numbers: int) -> None:
    receiver.process(batch(1, *numbers))
    receiver.notice(notice("usable", numbers))


def keys_in(directory: Path) -> list[tuple[int, bytes]]:
    """Of all containers that have their name, in the order of the names."""
    found = []
    for path in sorted(directory.glob("keys-*.json")):
        for k in json.loads(path.read_text())["keys"]:
            found.append((UUID(k["key_ID"]).int, base64.b64decode(k["key"])))
    return found


def test_containers_are_etsi_s_in_order_and_private(receiver: Receiver, tmp_path: Path) -> None:
    usable(receiver, 1, 2, 3)
    sink = sink_of(receiver, tmp_path / "out")
    assert sink.flush() == 3
    assert sink.flush() == 0
    assert keys_in(sink.directory) == [(n, key_of(n)) for n in (1, 2, 3)]
    files = sorted(sink.directory.iterdir())
    assert [len(json.loads(f.read_text())["keys"]) for f in files] == [2, 1]
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    assert stat.S_IMODE(sink.directory.stat().st_mode) == 0o700
    assert set(read_states(receiver.store).values()) == {"handed_out"}


def test_whoever_took_a_key_is_told_of_its_revocation(receiver: Receiver, tmp_path: Path) -> None:
    usable(receiver, 1, 2)
    sink = sink_of(receiver, tmp_path / "out", size=1)
    with receiver.table.transaction():
        sink._one()
    word = notice("revoke", [1, 2], 5)
    receiver.notice(word)
    receiver.notice(word)
    (told,) = sink.directory.glob("revoked-*.json")
    assert json.loads(told.read_text()) == {
        "notice": str(UUID(int=5)),
        "key_IDs": [{"key_ID": str(UUID(int=1))}],
    }


def test_an_export_hands_out(receiver: Receiver, tmp_path: Path) -> None:
    usable(receiver, 1, 2)
    path = tmp_path / "keys.json"
    path.write_text("old")
    assert export(receiver.hand_out, path, 1) == 1
    assert json.loads(path.read_text()) == {
        "keys": [{"key_ID": str(UUID(int=1)), "key": base64.b64encode(key_of(1)).decode()}]
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert receiver.hand_out.available() == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 14), min_size=1, max_size=4), size=st.integers(1, 3))
def test_each_key_is_in_one_container_wherever_the_power_goes(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], size: int
) -> None:
    directory = tmp_path_factory.mktemp("kms")
    receiver = receiver_in(directory / "kms")
    usable(receiver, 1, 2, 3, 4)
    for seed, cut in enumerate(cuts):
        _flush_until(receiver, directory / "out", size, seed, cut)
        receiver.close()
        receiver = receiver_in(directory / "kms")
    sink_of(receiver, directory / "out", size, 99).flush()
    assert Counter(keys_in(directory / "out")) == Counter((n, key_of(n)) for n in (1, 2, 3, 4))
    assert list((directory / "out").glob(".*")) == []
    receiver.close()


def _flush_until(receiver: Receiver, out: Path, size: int, seed: int, calls: int) -> None:
    """Flush; the power goes at the n-th call that reaches for the disk."""
    left = [calls]

    def counted(work):  # type: ignore[no-untyped-def]
        def wrapped(*arguments):  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] == 0:
                raise PowerCut
            return work(*arguments)

        return wrapped

    with pytest.MonkeyPatch.context() as m:
        m.setattr(sink_module, "os", _Os(counted))
        with suppress(PowerCut):
            sink_of(receiver, out, size, seed).flush()


class _Os:
    """The operating system as the sink sees it, with a power supply that fails."""

    O_WRONLY, O_CREAT, O_EXCL, O_RDONLY = os.O_WRONLY, os.O_CREAT, os.O_EXCL, os.O_RDONLY

    def __init__(self, counted):  # type: ignore[no-untyped-def]
        self.open, self.replace, self.fsync = counted(os.open), counted(os.replace), counted(os.fsync)
        self.close = os.close
