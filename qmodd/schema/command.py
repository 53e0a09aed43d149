"""`qmodd schema`: AsyncAPI document of the MQTT face, JSON Schemas of every message and of the configuration files."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from qmodd.durable import write_whole
from qmodd.schema import asyncapi
from qmodd.schema.configuration import DIALECT, FILES, configuration
from qmodd.schema.models import message_models, schema_of


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommand's arguments."""
    p = commands.add_parser(
        "schema",
        help="AsyncAPI document and JSON Schemas",
        description="Prints the AsyncAPI 3.0 document of the MQTT face, or one JSON Schema; with --out writes all.",
        epilog="example: qmodd schema State    or: qmodd schema --out schemas",
    )
    p.add_argument(
        "what",
        nargs="?",
        default="asyncapi",
        metavar="NAME",
        help=f"asyncapi (default), a message such as State, or a configuration file: {', '.join(FILES)}",
    )
    p.add_argument("--out", type=Path, metavar="DIR", help="write all of them to files of this directory")
    p.add_argument("--json", action="store_true", help="one JSON object in one line on stdout")
    p.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 done, 2 no such name, or the directory cannot be written."""
    if arguments.out is not None:
        return _write(arguments.out, arguments.json)
    try:
        found = schema(arguments.what)
    except LookupError as e:
        sys.stderr.write(f"qmodd schema: {e.args[0]}\n")
        return 2
    sys.stdout.write(json.dumps(found, indent=None if arguments.json else 2) + "\n")
    return 0


def schema(name: str) -> dict[str, Any]:
    """By name. Raises LookupError, which lists what there is."""
    models = message_models()
    if name == "asyncapi":
        return asyncapi.document()
    if name in FILES:
        return configuration(name)
    if name in models:
        return {"$schema": DIALECT, **schema_of(models[name])}
    raise LookupError(f"{name!r} is none of asyncapi, {', '.join([*FILES, *models])}")


def _write(directory: Path, as_json: bool) -> int:
    names = {"asyncapi": "asyncapi.json", **{n: f"configuration-{n}.json" for n in FILES}}
    names |= {n: f"message-{n}.json" for n in message_models()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, file in names.items():
            write_whole(directory / file, json.dumps(schema(name), indent=2) + "\n")
    except OSError as e:
        sys.stderr.write(f"qmodd schema: {e}\n")
        return 2
    sys.stderr.write("" if as_json else f"{len(names)} files in {directory}\n")
    if as_json:
        sys.stdout.write(json.dumps({"files": [str(directory / f) for f in names.values()]}) + "\n")
    return 0
