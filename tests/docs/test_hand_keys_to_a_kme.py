"""The example configurations of receiver and KME: complete, valid, and the page's fit the models."""

from __future__ import annotations

import re
import textwrap
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from qmodd.kme.settings import KmeSettings
from qmodd.receive import ReceiveSettings
from qmodd.receiver.table import WITH_BYTES, Held
from tests.docs.pages import DOCS, ROOT, code, rows, sections

PAGE = DOCS / "how-to" / "hand-keys-to-a-kme.md"
FILES: dict[str, type[BaseModel]] = {"receive.toml": ReceiveSettings, "kme.toml": KmeSettings}


@pytest.mark.parametrize("name", FILES)
def test_the_page_s_files_are_valid(name: str) -> None:
    match = re.search(rf"<!-- file: {name} -->\n *```toml\n(.*?)```", PAGE.read_text(), re.S)
    assert match
    assert FILES[name].model_validate(tomllib.loads(textwrap.dedent(match[1])))


@pytest.mark.parametrize("name", FILES)
def test_the_shipped_examples_are_valid_and_complete(name: str) -> None:
    text = (ROOT / "configs" / name).read_text()
    assert FILES[name].model_validate(tomllib.loads(text))
    uncommented = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.M)
    assert _keys(FILES[name]) <= set(re.findall(r"^(\w+) = ", uncommented, re.M)) | set(re.findall(r"\[(\w+)\]", text))


def _keys(model: type[BaseModel]) -> set[str]:
    """Of a model and all models in it."""
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return {name for part in parts for name in part.get("properties", {})}


def test_states_of_a_key_at_a_receiver() -> None:
    table = rows(sections(DOCS / "reference" / "keys.md")["States of a key at a receiver"])
    assert sorted(code(r[0]) for r in table) == sorted(Held)
    assert {code(r[0]) for r in table if r[2] == "sealed"} == set(WITH_BYTES)


def test_the_page_says_what_the_server_refuses() -> None:
    source = "".join(p.read_text() for p in (Path(ROOT) / "qmodd" / "kme").glob("*.py"))
    source += (ROOT / "qmodd" / "receiver" / "handing.py").read_text()
    for told in re.findall(r"^\| \d{3} `([^`]+)`", PAGE.read_text(), re.M):
        words = told.replace("256", "{size}")
        assert words in source.replace("\n", " "), told
