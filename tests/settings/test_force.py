"""What is in force over a file that may have changed, and what does not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qmodd.config import Config
from qmodd.settings.force import compose, with_values
from qmodd.settings.overrides import Kept, Override, Overrides
from qmodd.settings.tell import message
from qmodd.settings.tree import NotAllowed, Value, tree, value_of
from tests.settings.files import config

LEAVES = tree("alice")


def over(**values: Value) -> Overrides:
    """Set one after the other; `__` stands for the dot."""
    o = Overrides()
    for n, (path, value) in enumerate(values.items()):
        o = o.set(path.replace("__", "."), Override(value, "ann", f"2026-01-01T00:00:{n:02}", 0))
    return o


def file(tmp_path: Path, **sections: dict[str, Any]) -> Config:
    return config(tmp_path, **sections)


def test_nothing_set_is_the_file(tmp_path: Path) -> None:
    f = file(tmp_path)
    assert compose(f, Overrides(), LEAVES).config == f


def test_a_set_value_wins(tmp_path: Path) -> None:
    f = file(tmp_path, keys={"store_limit": 500})
    found = compose(f, over(keys__store_limit=900), LEAVES)
    assert (found.config.keys.store_limit, found.ignored) == (900, {})
    assert found.config.model_copy(update={"keys": f.keys}) == f


def test_a_file_that_became_safer_wins_over_a_safety_limit(tmp_path: Path) -> None:
    found = compose(file(tmp_path, safety={"submount_max_c": 50.0}), over(safety__submount_max_c=55.0), LEAVES)
    assert found.config.safety.submount_max_c == 50.0
    assert "30 to 50 C is allowed" in found.ignored["safety.submount_max_c"]


def test_a_file_that_became_looser_leaves_the_override(tmp_path: Path) -> None:
    found = compose(file(tmp_path, safety={"submount_max_c": 70.0}), over(safety__submount_max_c=55.0), LEAVES)
    assert found.config.safety.submount_max_c == 55.0


def test_what_this_version_does_not_know_or_allow_is_left_aside(tmp_path: Path) -> None:
    found = compose(file(tmp_path), over(keys__spin=1, keys__eps_sec=1e-7, keys__store_limit="many"), LEAVES)
    assert found.config == file(tmp_path)
    assert set(found.ignored) == {"keys.spin", "keys.eps_sec", "keys.store_limit"}


def test_of_two_that_do_not_go_together_the_earlier_stays(tmp_path: Path) -> None:
    found = compose(file(tmp_path), over(safety__tec_max_a=2.2, control__tec_current_limit_a=2.4), LEAVES)
    assert found.config.safety.tec_max_a == 2.2
    assert found.config.control.tec_current_limit_a == 2.0
    assert "safety.tec_max_a = 2.2 A has to be above control.tec_current_limit_a = 2.4 A" in str(found.ignored)


def test_what_the_file_itself_does_not_keep_to_stands_in_nobodys_way(tmp_path: Path) -> None:
    odd = file(tmp_path, safety={"tec_max_a": 1.5})
    assert with_values(odd, {"keys.store_limit": 500}, odd).keys.store_limit == 500
    with pytest.raises(NotAllowed, match=r"safety.object_max_c = 30 C has to be above control.tec_target_c = 30 C"):
        with_values(odd, {"safety.object_max_c": 30.0}, odd)


def test_the_message_of_an_override_that_is_not_in_force(tmp_path: Path) -> None:
    kept = Kept(Override(55.0, "ann", "2026-01-01", 60.0), (None,))
    told = message(LEAVES["safety.submount_max_c"], 50.0, 50.0, None, kept, "the reason")
    assert (told.origin, told.value, told.before, told.high) == ("file", 50.0, 50.0, 50.0)
    assert told.note == (
        "55.0 was set and is not in force: the reason; the file said 60.0 when this was set, and says 50.0 now"
    )


def test_the_message_fits_every_setting(tmp_path: Path) -> None:
    for side in ("alice", "bob"):
        for leaf in tree(side).values():
            value = value_of(file(tmp_path), leaf.path)
            told = message(leaf, value, value, None, Kept(), "")
            assert type(told).model_validate_json(told.payload()) == told
