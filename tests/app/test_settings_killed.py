"""SIGKILL while settings are changed: what was answered is in force at the next start, and the file is whole."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qmodd.app.setting_desk import SettingDesk
from qmodd.clock import SystemClock
from qmodd.keys.conversation import Blocking
from tests.settings.files import config

CHANGER = """
import asyncio, sys
from pathlib import Path
from qmodd.app.setting_desk import SettingDesk
from qmodd.clock import SystemClock
from qmodd.keys.conversation import Blocking
from tests.settings.files import config

async def main(directory, first):
    desk = SettingDesk(config(directory), SystemClock(), Blocking(True))
    for n in range(first, 10**9):
        answer = await desk.set("keys.store_limit", {"value": n})
        print(answer["value"], flush=True)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.mark.processes
def test_what_was_answered_outlives_the_process(tmp_path: Path) -> None:
    rnd, last = random.Random(6), 100
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", CHANGER, str(tmp_path), str(last + 1)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout as answers:
            for _ in range(rnd.randint(1, 60)):
                last = int(answers.readline())
            process.send_signal(signal.SIGKILL)
            last = max([last, *(int(line) for line in answers if line.endswith("\n"))])
        process.wait()
        desk = SettingDesk(config(tmp_path), SystemClock(), Blocking(False))
        # One more may be on disk than was answered.
        assert desk.in_force.keys.store_limit in (last, last + 1)
        last = desk.in_force.keys.store_limit
