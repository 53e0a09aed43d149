"""docs/reference/cli.md names every command and every option that the parsers have, and no other."""

from __future__ import annotations

import argparse

import pytest

from qmodd import cli, ctl
from tests.docs.pages import DOCS, code, rows, sections

PAGE = DOCS / "reference" / "cli.md"
HELP = {"-h", "--help"}


def parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Direct subcommands of a parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {o for action in parser._actions for o in action.option_strings} - HELP


QMODD = parsers(cli.parser(list(cli.COMMANDS)))
ALL = {f"qmodd {n}": p for n, p in QMODD.items()} | {f"qmodd sim {n}": p for n, p in parsers(QMODD["sim"]).items()}


def documented(heading: str) -> list[str]:
    return [code(row[0]) for row in rows(sections(PAGE)[heading])]


@pytest.mark.parametrize("command", ALL)
def test_options_of_a_command(command: str) -> None:
    assert set(documented(command)) == options(ALL[command])


def test_no_command_is_made_up() -> None:
    assert {h for h in sections(PAGE) if h.startswith("qmodd ")} == set(ALL)


def test_qmodctl() -> None:
    commands = parsers(ctl.parser())
    listed = documented("qmodctl")
    assert {x for x in listed if x.startswith("-")} == set().union(*map(options, commands.values()))
    assert {x.split()[0] for x in listed if not x.startswith("-")} == set(commands)


@pytest.mark.parametrize("command", ALL)
def test_every_command_has_help(command: str) -> None:
    assert ALL[command].format_help()
