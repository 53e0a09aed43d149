"""The programs of docs/how-to/use-your-own-mqtt-client.md, run as they stand there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from qmodd.broker import start_broker
from tests.docs.pages import DOCS, blocks
from tests.schema.stand_in import MODULE, standing_in

PAGE = DOCS / "how-to" / "use-your-own-mqtt-client.md"
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto-clients is not installed"),
]


async def said(*argv: str, cwd: Path, stdin: bytes = b"", **environment: str) -> tuple[int, str]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **environment}
    )
    out, errors = await process.communicate(stdin)
    return process.returncode or 0, out.decode() + errors.decode()


async def test_both_programs_of_the_page_get_their_answers(tmp_path: Path) -> None:
    programs = {b.file: b.text for b in blocks(PAGE) if b.file}
    for name, text in programs.items():
        (tmp_path / str(name)).write_text(text)
    tools = Path(sys.executable).parent
    assert (tools / "qmodctl").exists()
    broker = await start_broker(tmp_path / "broker", embedded=False)
    try:
        async with standing_in(tmp_path / "core", broker.url) as site:
            site.module.activity = "keying"
            port = str(broker.plan.port)
            status, out = await said(
                "sh",
                "ask.sh",
                cwd=tmp_path,
                HOST="127.0.0.1",
                PORT=port,
                MODULE=MODULE,
                QMODD_IDENTITY=str(site.clients / "operator"),
                PATH=f"{tools}{os.pathsep}{os.environ['PATH']}",
            )
            assert status == 0, out
            mark, _, answer = out.strip().partition(" ")
            assert (mark, json.loads(answer)["ok"]) == ("my-first-request", True)
            assert site.module.activity == "ready"

            for words, arguments, status in (
                (["selftest", "wait=true", "level=light-off"], ["do-command-selftest"], 0),
                (["set/keys.store_limit", "value=20000"], ["do-set-path", "path=keys.store_limit"], 0),
                (["set/keys.store_limit", "value=1"], ["do-set-path", "path=keys.store_limit"], 1),
            ):
                signed = await site.sign("operator", *words)
                asked = [sys.executable, "ask.py", port, MODULE, "operator", *arguments]
                found, out = await said(*asked, cwd=tmp_path, stdin=signed)
                assert found == status, out
                assert json.loads(out.splitlines()[-1])["ok"] is (status == 0)
            assert site.module.store_limit == 20000
    finally:
        broker.stop()
