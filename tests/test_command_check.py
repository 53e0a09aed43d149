"""Arguments of commands: what the model takes, the words of a refusal, and that the JSON Schema says the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.command_check import check, checked
from qmodd.command_models import COMMANDS, SET, Arguments, Lease, Locate, OneRecord, Selftest, Sweep
from qmodd.messages import Limit
from qmodd.requests import ROLES, Refusal
from qmodd.schema.models import schema_of
from qmodd.selftest.model import Level

MODELS: dict[str, type[Arguments]] = {**{n: c.arguments for n, c in COMMANDS.items()}, "set": SET.arguments}


@pytest.mark.parametrize(
    ("model", "arguments", "code", "words"),
    [
        (Locate, {"colour": 1}, "bad_arguments", "unknown argument 'colour'; allowed: seconds"),
        (Sweep, {"from": 1.0, "x": 1}, "bad_arguments", "unknown argument 'x'; allowed: output, from, to, points"),
        (Lease, {}, "bad_arguments", "output is missing: a text of 1 to 64 characters"),
        (Lease, {"output": ""}, "bad_arguments", "output must be a text of 1 to 64 characters"),
        (Lease, {"output": "x", "seconds": "1"}, "bad_arguments", "seconds = '1': a number is wanted"),
        (Lease, {"output": "x", "seconds": True}, "bad_arguments", "seconds = True: a number is wanted"),
        (Locate, {"seconds": float("nan")}, "bad_arguments", "seconds = nan: a number is wanted"),
        (Locate, {"seconds": 3601}, "out_of_range", "seconds = 3601 s: 0 to 3600 s is allowed; nothing was changed"),
        (OneRecord, {"calibration": "x", "version": 0}, "out_of_range", "version = 0: at least 1 is allowed"),
        (OneRecord, {"calibration": "x", "version": 1.5}, "bad_arguments", "version = 1.5: a whole number is wanted"),
        (Selftest, {"wait": 1}, "bad_arguments", "wait = 1: true or false is allowed"),
        (Selftest, {"level": "x" * 500}, "bad_arguments", "...: power-on, light-off, light-on, production is allowed"),
        (Sweep, {"output": "x", "from": 0, "to": 1, "points": 2, "read": "y"}, "bad_arguments", "a list is wanted"),
        (Sweep, {"output": "x", "from": 0, "to": 1, "points": 2, "read": [7]}, "bad_arguments", "read.0 = 7: "),
    ],
)
def test_words(model: type[Arguments], arguments: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(Refusal) as e:
        check(model, arguments)
    assert e.value.code == code
    assert words in str(e.value)
    assert len(str(e.value)) < 400


def test_a_limit_is_told_to_programs_too() -> None:
    with pytest.raises(Refusal) as e:
        check(Lease, {"output": "tec.target", "seconds": 5000.0})
    assert e.value.limit == Limit(output="seconds", value=5000.0, low=1.0, high=3600.0, unit="s")


async def test_a_handler_never_sees_what_does_not_fit() -> None:
    seen: list[Mapping[str, Any]] = []

    async def handler(arguments: Mapping[str, Any]) -> dict[str, Any]:
        seen.append(arguments)
        return {}

    behind = checked({"locate": handler, "of-no-model": handler})
    with pytest.raises(Refusal):
        await behind["locate"]({"seconds": -1})
    assert seen == []
    await behind["locate"]({"seconds": 0})
    await behind["of-no-model"]({"anything": 1})
    assert seen == [{"seconds": 0}, {"anything": 1}]


def test_levels_are_those_of_the_self_test() -> None:
    levels = schema_of(Selftest)["properties"]["level"]["enum"]
    assert levels == [level.value for level in Level]


def test_every_command_has_roles_and_says_what_it_does() -> None:
    assert set(COMMANDS) <= set(ROLES)
    for name, command in COMMANDS.items():
        assert command.does, name
        for field in command.arguments.model_fields.values():
            assert field.description, name


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10_000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.sampled_from(["light-off", "power-on", "x" * 64, "x" * 65, "x" * 200, "x" * 201, 0, 1, 3600, 3600.5, 604800]),
    st.lists(st.text(max_size=2) | st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(0, 3), max_size=1),
)


@given(data=st.data(), name=st.sampled_from(sorted(MODELS)))
def test_the_schema_refuses_what_core_refuses(data: st.DataObject, name: str) -> None:
    """A client that checks by the published schema is not refused for form, and none that would pass is kept away."""
    model = MODELS[name]
    known = [f.alias or n for n, f in model.model_fields.items()]
    required = [f.alias or n for n, f in model.model_fields.items() if f.is_required()]
    extra = data.draw(st.lists(st.sampled_from([*known, "colour"]), unique=True))
    arguments = {key: data.draw(VALUES, label=key) for key in dict.fromkeys([*required, *extra])}
    try:
        check(model, arguments)
        accepted = True
    except Refusal:
        accepted = False
    by_schema = jsonschema.Draft202012Validator(schema_of(model)).is_valid(arguments)
    if accepted != by_schema:
        # JSON Schema takes 2.0 for an integer; core does not.
        assert by_schema
        assert any(isinstance(v, float) and v.is_integer() for v in arguments.values())
