"""A receiver with a store of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qmodd.receive import Receiver
from tests.receiver.build import receiver_in


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = receiver_in(tmp_path / "kms")
    yield made
    made.close()
