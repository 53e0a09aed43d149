"""`python -m tests.docs.refresh`: brings limits and defaults in the tables of keys and options up to date, and the
tables of topics, messages and commands.

Meanings of keys and options stay; a new key gets a row without one, which the tests then ask for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import BaseModel

from tests.docs import test_configuration, test_drivers, test_settings, topics_page
from tests.docs.pages import rows
from tests.docs.test_configuration import expected


def refreshed(text: str, models: Mapping[str, type[BaseModel]], drivers: bool) -> str:
    """The page with the table below each model's heading brought up to date."""
    parts = re.split(r"^(#+ .*)$", text, flags=re.M)
    for i in range(1, len(parts), 2):
        model = models.get(parts[i].lstrip("# ").replace("`", ""))
        if model is not None:
            parts[i + 1] = _table(parts[i + 1], model, drivers)
    return "".join(parts)


def _table(section: str, model: type[BaseModel], drivers: bool) -> str:
    meanings = {row[0]: row[3] for row in rows(section)}
    lines = section.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    last = max(i for i, line in enumerate(lines) if line.startswith("|"))
    new = [f"| {' | '.join([*row, meanings.get(row[0], '')])} |" for row in expected(model, tables=drivers)]
    return "\n".join([*lines[: first + 2], *new, *lines[last + 1 :]]) + "\n"


def main() -> None:
    for module, drivers in ((test_configuration, False), (test_drivers, True)):
        module.PAGE.write_text(refreshed(module.PAGE.read_text(), module.MODELS, drivers))
    test_settings.PAGE.write_text(test_settings.page())
    topics_page.PAGE.write_text(topics_page.refreshed(topics_page.PAGE.read_text()))


if __name__ == "__main__":
    main()
