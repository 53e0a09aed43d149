"""A real Mosquitto for the tests of a module, on a free port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmodd.broker import BrokerHandle, start_broker


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerHandle]:
    directory: Path = tmp_path_factory.mktemp("mosquitto")
    handle = asyncio.run(start_broker(directory, embedded=False))
    yield handle
    handle.stop()
