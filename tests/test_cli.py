"""The command line: every command is there, has help with an example, and wrong usage is 2."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qmodd import __version__
from qmodd.cli import COMMANDS, main


def ended(*argv: str) -> int | str | None:
    with pytest.raises(SystemExit) as e:
        main(list(argv))
    return e.value.code


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(name, "--help") == 0
    shown = capsys.readouterr().out
    assert f"usage: qmodd {name}" in shown
    _, _, after = shown.partition("options:")
    assert f"qmodd {name} " in after


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--help") == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n    {name}" in shown
    assert "Exit status: 0 done" in " ".join(shown.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--version") == 0
    assert capsys.readouterr().out == f"qmodd {__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [(), ("nonsense",), ("core",), ("core", "--config"), ("soak", "--days", "x"), ("provision", "--out", "d")],
    ids=lambda a: " ".join(a) or "nothing",
)
def test_wrong_usage_is_2(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(*argv) == 2
    assert "usage: qmodd" in capsys.readouterr().err


def test_arguments_default_to_those_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["qmodd", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert "qmodd" in capsys.readouterr().out


def test_module_is_a_command_and_imports_nothing_heavy() -> None:
    """A daemon's own help must not load compilers and emulators."""
    code = "import sys; from qmodd.cli import main\ntry: main(['core', '--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('numba', 'scipy', 'sim.world', 'rich', 'pyvisa') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    done = subprocess.run([sys.executable, "-m", "qmodd", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"qmodd {__version__}"
