"""`qmodctl completion`: scripts for bash, zsh and fish, written out of the parsers: they know what those know."""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "fish")


def add_completion_parser(commands: Any) -> None:
    """The parser of `completion`."""
    one = commands.add_parser(
        "completion",
        help="a script that completes commands and options",
        epilog="example: source <(qmodctl completion bash)",
    )
    one.add_argument("shell", choices=SHELLS)


@dataclass(frozen=True)
class Option:
    """`values`: the words that may follow; `file`: a path follows; `takes`: anything at all follows."""

    name: str
    help: str
    values: tuple[str, ...] = ()
    file: bool = False
    takes: bool = False


@dataclass(frozen=True)
class Verb:
    name: str
    help: str
    options: tuple[Option, ...]
    # Words that may stand alone, such as the shells of `completion`.
    words: tuple[str, ...] = ()


def verbs(top: argparse.ArgumentParser) -> list[Verb]:
    """Every command with its options, as the parsers have them."""
    (sub,) = [a for a in top._actions if isinstance(a, argparse._SubParsersAction)]
    helps = {a.dest: a.help or "" for a in sub._choices_actions}
    return [_verb(name, helps.get(name, ""), parser) for name, parser in sub.choices.items()]


def _verb(name: str, text: str, parser: argparse.ArgumentParser) -> Verb:
    options: list[Option] = []
    words: list[str] = []
    for action in parser._actions:
        values = tuple(str(c) for c in action.choices or ())
        if not action.option_strings:
            words += values
        for spelling in action.option_strings:
            takes = action.nargs != 0
            file = takes and (action.type is Path or action.metavar in ("FILE", "DIR", "PATH"))
            options.append(Option(spelling, action.help or "", values, file, takes))
    return Verb(name, text, tuple(options), tuple(words))


def completion(top: argparse.ArgumentParser, shell: str) -> str:
    """The script for one of SHELLS."""
    known = verbs(top)
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](top.prog, known)


def _bash(program: str, known: list[Verb]) -> str:
    function = "_" + re.sub(r"\W", "_", program)
    cases: list[str] = []
    for verb in known:
        follow: dict[str, list[str]] = {}
        for o in verb.options:
            if o.takes:
                follow.setdefault(_bash_value(o), []).append(o.name)
        answers = "".join(f"        {'|'.join(names)}) {answer}; return ;;\n" for answer, names in follow.items())
        words = " ".join((*(o.name for o in verb.options), *verb.words))
        cases.append(
            f"    {verb.name})\n      case $before in\n{answers}      esac\n"
            f'      COMPREPLY=($(compgen -W {shlex.quote(words)} -- "$word")) ;;\n'
        )
    names = " ".join(v.name for v in known)
    return (
        f"{function}() {{\n"
        "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
        "  COMPREPLY=()\n"
        f'  if ((COMP_CWORD == 1)); then COMPREPLY=($(compgen -W {shlex.quote(names)} -- "$word")); return; fi\n'
        "  case ${COMP_WORDS[1]} in\n" + "".join(cases) + "  esac\n}\n"
        f"complete -F {function} {program}\n"
    )


def _bash_value(o: Option) -> str:
    """What is proposed after it."""
    if o.values:
        return f'COMPREPLY=($(compgen -W {shlex.quote(" ".join(o.values))} -- "$word"))'
    if o.file:
        return 'COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null || true'
    return ":"  # anything may follow: nothing is proposed, no option either


def _zsh(program: str, known: list[Verb]) -> str:
    function = "_" + re.sub(r"\W", "_", program)
    described = "\n".join(f"    {shlex.quote(f'{v.name}:{v.help}')}" for v in known)
    cases = "".join(
        f"    {v.name}) _arguments {' '.join([*(_zsh_option(o) for o in v.options), _zsh_words(v)])} ;;\n"
        for v in known
    )
    return (
        f"#compdef {program}\n{function}() {{\n  local -a commands\n  commands=(\n{described}\n  )\n"
        "  if ((CURRENT == 2)); then _describe command commands; return; fi\n"
        "  local verb=$words[2]\n  shift words\n  ((CURRENT--))\n"
        f"  case $verb in\n{cases}  esac\n}}\n"
        f'if [ "$funcstack[1]" = {function} ]; then {function}; else compdef {function} {program}; fi\n'
    )


def _zsh_option(o: Option) -> str:
    text = o.name + "[" + re.sub(r"[\[\]:]", " ", o.help) + "]"
    if o.values:
        text += f":value:({' '.join(o.values)})"
    elif o.file:
        text += ":file:_files"
    elif o.takes:
        text += ":value:"
    return shlex.quote(text)


def _zsh_words(v: Verb) -> str:
    return shlex.quote(f"*:value:({' '.join(v.words)})" if v.words else "*: :")


def _fish(program: str, known: list[Verb]) -> str:
    lines = [f"complete -c {program} -f"]
    for v in known:
        lines.append(f"complete -c {program} -n __fish_use_subcommand -a {v.name} -d {_fish_text(v.help)}")
        seen = f"-n {_fish_text(f'__fish_seen_subcommand_from {v.name}')}"
        for o in v.options:
            flag = f"-l {o.name[2:]}" if o.name.startswith("--") else f"-s {o.name[1:]}"
            follows = (
                f" -x -a {_fish_text(' '.join(o.values))}"
                if o.values
                else " -r -F"
                if o.file
                else " -x"
                if o.takes
                else ""
            )
            lines.append(f"complete -c {program} {seen} {flag}{follows} -d {_fish_text(o.help)}")
        if v.words:
            lines.append(f"complete -c {program} {seen} -a {_fish_text(' '.join(v.words))}")
    return "\n".join(lines) + "\n"


def _fish_text(text: str) -> str:
    """Quoted as fish reads it: only a backslash and the quote are special."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
