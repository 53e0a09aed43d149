"""The scripts know what the parsers know; bash is asked itself, zsh and fish where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from qmodd import ctl
from qmodd.ctl_completion import completion, verbs

BASH = shutil.which("bash") or ""


def proposed(tmp_path: Path, *words: str) -> set[str]:
    """What bash proposes for the last of the words."""
    script = completion(ctl.parser(), "bash")
    words = ("qmodctl", *words)
    quoted = " ".join(f"'{w}'" for w in words)
    state = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}"
    ask = f"{script}\n{state}\n_qmodctl\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    done = subprocess.run([BASH, "--norc", "-eu", "-c", ask], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(not BASH, reason="no bash here")
class TestBash:
    def test_commands(self, tmp_path: Path) -> None:
        assert proposed(tmp_path, "") == {v.name for v in verbs(ctl.parser())}
        assert proposed(tmp_path, "sta") == {"status"}

    def test_options_of_the_command(self, tmp_path: Path) -> None:
        assert {"--min-availability", "--html", "--broker", "--ca"} <= proposed(tmp_path, "kpi", "QM-A-0001", "--")
        assert "--min-availability" not in proposed(tmp_path, "status", "--")
        assert proposed(tmp_path, "kpi", "--htm") == {"--html"}

    def test_values_of_an_option(self, tmp_path: Path) -> None:
        levels = {"power-on", "light-off", "light-on", "production"}
        assert proposed(tmp_path, "selftest", "QM-A-0001", "--level", "") == levels
        assert proposed(tmp_path, "selftest", "QM-A-0001", "--level", "li") == {"light-off", "light-on"}
        assert proposed(tmp_path, "completion", "") >= {"bash", "zsh", "fish"}

    def test_files_after_an_option_that_takes_one(self, tmp_path: Path) -> None:
        (tmp_path / "march.html").write_text("")
        assert proposed(tmp_path, "kpi", "--html", "mar") == {"march.html"}

    def test_nothing_where_anything_may_follow(self, tmp_path: Path) -> None:
        assert proposed(tmp_path, "kpi", "--min-skr", "") == set()


def test_every_option_of_every_command_is_in_every_script() -> None:
    top = ctl.parser()
    for shell in ("bash", "zsh", "fish"):
        text = completion(top, shell)
        for verb in verbs(top):
            assert verb.name in text
            for option in verb.options:
                assert (option.name if shell != "fish" else option.name.lstrip("-")) in text


@pytest.mark.parametrize(("shell", "check"), [("zsh", ("zsh", "-n")), ("fish", ("fish", "--no-execute"))])
def test_other_shells_can_read_theirs(shell: str, check: tuple[str, ...], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    file = tmp_path / "script"
    file.write_text(completion(ctl.parser(), shell))
    done = subprocess.run([*check, str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["completion", "bash"]) == 0
    assert "complete -F _qmodctl qmodctl" in capsys.readouterr().out
