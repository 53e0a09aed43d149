"""`qmodd schema` as it is called, and that the schemas judge real files as core does."""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qmodd import cli
from qmodd.messages import Alive
from qmodd.schema import asyncapi
from qmodd.schema.configuration import FILES, configuration
from qmodd.schema.models import message_models
from tests.docs.pages import ROOT


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert cli.main(["schema", *argv]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_document_is_printed_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys) == said(capsys, "asyncapi", "--json") == asyncapi.document()


def test_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    schema = said(capsys, "Alive")
    good = {"state": "online", "epoch": "0" * 16, "version": "1", "since": "2026-01-01T00:00:00Z"}
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(Alive.model_validate_json(json.dumps(good)).payload()))
    assert not jsonschema.Draft202012Validator(schema).is_valid({**good, "more": 1})


def test_a_wrong_name_is_told_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema", "Stat"]) == 2
    errors = capsys.readouterr().err
    assert "'Stat' is none of asyncapi, module, receiver" in errors
    assert "State" in errors


def test_all_to_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = said(capsys, "--out", str(tmp_path / "schemas"), "--json")["files"]
    assert len(files) == 1 + len(FILES) + len(message_models())
    for file in files:
        if not file.endswith("asyncapi.json"):
            jsonschema.Draft202012Validator.check_schema(json.loads(Path(file).read_text()))
    assert json.loads((tmp_path / "schemas" / "asyncapi.json").read_text()) == asyncapi.document()


def test_a_directory_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["schema", "--out", str(tmp_path / "file")]) == 2
    assert "file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["alice.toml", "bob.toml"])
def test_shipped_configurations_fit_their_schema(name: str) -> None:
    validator = jsonschema.Draft202012Validator(configuration("module"))
    shipped = tomllib.loads((ROOT / "configs" / name).read_text())
    validator.validate(shipped)
    wrong = copy.deepcopy(shipped)
    wrong["keys"]["lifetime"] = 1
    assert not validator.is_valid(wrong)
    del wrong["keys"]["lifetime"]
    wrong["uplink"]["telemetry_period_s"] = "often"
    assert not validator.is_valid(wrong)
