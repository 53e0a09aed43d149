"""A receiver that is killed at any moment keeps what it has acknowledged, and each key goes out once."""

from __future__ import annotations

import base64
import random
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from qmodd.receive import read_states
from tests.docs.pages import ROOT
from tests.receiver.build import ALICE, KMS, batch, key_of, notice, said, status
from tests.receiver.test_sink import keys_in

KILLS, BATCHES, EACH = 12, 20, 6


class Feeder:
    def __init__(self, tmp_path: Path) -> None:
        KMS.save(tmp_path / "kms.key")
        ALICE.save_public(tmp_path / "alice.pub")
        names = ("kms", "out", "kms.key", "alice.pub")
        self.argv = [sys.executable, "-m", "tests.receiver.feeder", *(str(tmp_path / n) for n in names)]
        self.process: subprocess.Popen[str] | None = None

    def ask(self, suffix: str, data: bytes) -> bytes | None:
        """The acknowledgement, None if the process died before it."""
        if self.process is None:
            self.process = subprocess.Popen(
                self.argv, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{suffix or '-'} {base64.b64encode(data).decode()}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line.endswith("\n"):
            return base64.b64decode(line)
        self.end()
        return None

    def kill(self) -> None:
        process = self.process  # from a timer's thread: it may be another one in the next moment
        if process is not None:
            process.kill()

    def end(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):
                    pipe.close()


@pytest.mark.processes
def test_killed_at_random_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    feeder, rng = Feeder(tmp_path), random.Random(5)
    work = [(n, tuple(range(n * EACH, (n + 1) * EACH))) for n in range(1, BATCHES + 1)]
    steps = [(kind, n, numbers) for n, numbers in work for kind in ("", "usable")]
    doomed = set(rng.sample(range(len(steps)), KILLS))
    deaths = 0
    for at, (kind, n, numbers) in enumerate(steps):
        data = notice("usable", numbers, n) if kind else batch(n, *numbers)
        timer = threading.Timer(rng.uniform(0.0, 0.012), feeder.kill) if at in doomed and feeder.process else None
        if timer:
            timer.start()
        while (ack := feeder.ask(kind, data)) is None:
            deaths += 1
        if timer:
            timer.join()
        assert (said(ack) if kind else status(ack)) == ["usable" if kind else "imported"] * EACH
    # The first may find it dead, and what a kill left over goes out with it; the second is answered after that.
    for _ in range(2):
        while feeder.ask("usable", notice("usable", work[-1][1], 1)) is None:
            pass
    feeder.end()
    every = [n for _, numbers in work for n in numbers]
    assert Counter(keys_in(tmp_path / "out")) == Counter((n, key_of(n)) for n in every)
    assert set(read_states(tmp_path / "kms").values()) == {"handed_out"}
    assert deaths >= KILLS // 2
