"""Follows docs/how-to/add-a-driver.md: its package, its stanza, its tests."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers import registry
from drivers.roles import Device
from qmodd.config import Config, validate
from qmodd.config_files import MINIMUM_PRE_SHARED_BYTES
from qmodd.daemon import check_drivers
from qmodd.demo.compose import shipped
from tests.docs.pages import DOCS, blocks

PAGE = DOCS / "how-to" / "add-a-driver.md"
FILES = {b.file: b.text for b in blocks(PAGE) if b.file}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's package as an installer would leave it: modules and their metadata on the path."""
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    info = tmp_path / "qmodd_mcp9808-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items())
        for group, entries in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text(points)
    modules = [name for name in FILES if name.endswith(".py")]
    for name in modules:
        (tmp_path / name).write_text(FILES[name])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in modules:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_driver_is_found(installed: Path) -> None:
    assert registry.known()["mcp9808"] == "qmodd_mcp9808:Mcp9808"


def test_the_stanza_takes_the_place_of_the_shipped_one(installed: Path) -> None:
    stanza = tomllib.loads(FILES["stanza.toml"])["device"][0]
    raw = tomllib.loads(shipped("alice.toml"))
    raw["device"] = [d for d in raw["device"] if d["role"] != stanza["role"]] + [stanza]
    named = [raw["module"]["factory"], raw["pair"]["pre_shared_key"], raw["pair"]["key_encryption_key"]]
    named += [raw["uplink"]["identity"], raw["uplink"]["authority"], *(r["public"] for r in raw["recipient"])]
    for file in named:
        (installed / file).parent.mkdir(parents=True, exist_ok=True)
        (installed / file).write_bytes(bytes(MINIMUM_PRE_SHARED_BYTES))
    config = validate(raw, installed / "alice.toml")
    check_drivers(config, installed / "alice.toml")
    assert device(config).driver == "mcp9808"
    wrong: dict[str, Any] = {**stanza, "options": {"offset_k": 9.0}}
    with pytest.raises(registry.RegistryError, match=r"offset_k: Input should be less than or equal to 5, not 9\.0"):
        registry.validate(wrong["driver"], wrong["name"], wrong["options"])


def device(config: Config) -> Any:
    return config.by_role("submount")


def test_the_tests_of_the_page(installed: Path) -> None:
    module = importlib.import_module("test_mcp9808")
    tests = [f for n, f in vars(module).items() if n.startswith("test_") and inspect.iscoroutinefunction(f)]
    assert len(tests) == 3
    for test in tests:
        asyncio.run(test())
    assert isinstance(module.sensor({}), Device)


def test_limits_of_an_output(installed: Path) -> None:
    outputs = importlib.import_module("outputs")
    comment = FILES["outputs.py"].rsplit("# ", 1)[1].strip()
    assert outputs.message == comment


def test_the_protocol_is_quoted_as_it_is() -> None:
    quoted = next(b.text for b in blocks(PAGE) if b.file is None and b.language == "python")
    assert quoted in (DOCS.parent / "drivers" / "roles.py").read_text()
