"""docs/reference/drivers.md names every built-in driver and every option as the driver's own model has it."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from drivers import registry
from drivers.chips.ltc2668 import BiasChannel
from drivers.chips.ltc2672 import HeaterChannel
from drivers.chips.pca9535 import Line
from tests.docs.pages import DOCS, code, rows, sections
from tests.docs.test_configuration import OUTDATED, expected

PAGE = DOCS / "reference" / "drivers.md"
MODELS: dict[str, type[BaseModel]] = {
    **{name: registry.driver_class(name).Options for name in registry.BUILT_IN},
    "ltc2668: a channel": BiasChannel,
    "ltc2672: a channel": HeaterChannel,
    "pca9535: a line": Line,
}


@pytest.mark.parametrize("heading", MODELS)
def test_every_option_is_documented_with_its_limits(heading: str) -> None:
    wanted = expected(MODELS[heading], tables=True)
    found = [row[:3] for row in rows(sections(PAGE)[heading])]
    assert found == wanted, OUTDATED


def test_every_built_in_driver_is_listed() -> None:
    assert {code(row[0]) for row in rows(sections(PAGE)["Drivers and parts"])} == set(registry.BUILT_IN)
