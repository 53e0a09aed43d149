"""When two modules change over to another pad, and that no pad comes twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.keys.rekey import ALONE_S, Agreement, PadRefused, RekeyFile, Turn

OLD, NEW, OTHER = "0" * 32, "1" * 32, "2" * 32


def test_a_pad_is_staged_once_and_never_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "rekey.json"
    file = RekeyFile(path)
    file.stage(NEW, OLD, "ann and ben", "now")
    with pytest.raises(PadRefused, match="waits already"):
        file.stage(OTHER, OLD, "ann and ben", "now")
    file.switch()
    with pytest.raises(PadRefused, match="has begun"):
        file.abandon()
    again = RekeyFile(path)
    assert again.staged is not None
    assert (again.staged.fingerprint, again.staged.switching) == (NEW, True)
    again.done()
    for used in (OLD, NEW):
        with pytest.raises(PadRefused, match="never used again"):
            RekeyFile(path).stage(used, NEW, "ann and ben", "now")
    RekeyFile(path).stage(OTHER, NEW, "ann and ben", "now")


def test_what_waits_may_be_given_up(tmp_path: Path) -> None:
    file = RekeyFile(tmp_path / "rekey.json")
    with pytest.raises(PadRefused, match="no pad waits"):
        file.abandon()
    file.stage(NEW, OLD, "ann and ben", "now")
    file.abandon()
    assert RekeyFile(tmp_path / "rekey.json").staged is None


def test_a_file_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "rekey.json"
    path.write_text("{")
    assert RekeyFile(path).staged is None
    assert path.with_suffix(".damaged").exists()


def test_with_a_session_both_have_to_offer_the_same() -> None:
    one = Agreement(b"new")
    assert one.turn(0.0, True, 0) is Turn.WAIT
    assert one.turn(1e6, True, 0) is Turn.WAIT
    one.hear(b"other")
    assert one.turn(1e6, True, 0) is Turn.DIFFERS
    one.hear(b"new")
    assert one.turn(1e6, True, 2) is Turn.SETTLE
    assert one.turn(1e6, True, 0) is Turn.SWITCH


def test_once_agreed_the_far_one_may_go_first() -> None:
    one = Agreement(b"new")
    one.hear(b"new")
    assert one.turn(0.0, False, 0) is Turn.SWITCH


def test_without_a_session_it_waits_a_minute_in_one_piece() -> None:
    one = Agreement(b"new")
    assert one.turn(0.0, False, 0) is Turn.WAIT
    assert one.turn(ALONE_S - 1, False, 0) is Turn.WAIT
    assert one.turn(ALONE_S, True, 0) is Turn.WAIT
    assert one.turn(ALONE_S + 1, False, 0) is Turn.WAIT
    assert one.turn(2 * ALONE_S + 1, False, 0) is Turn.SWITCH


@given(st.lists(st.tuples(st.floats(0.0, 50.0), st.booleans(), st.sampled_from([b"", b"new", b"other"])), max_size=40))
def test_it_never_changes_over_in_a_session_that_has_not_agreed(story: list[tuple[float, bool, bytes]]) -> None:
    one, now, agreed, alone = Agreement(b"new"), 0.0, False, 0.0
    for seconds, session, heard in story:
        now += seconds
        if session and heard:
            one.hear(heard)
            agreed = agreed or heard == b"new"
        alone = 0.0 if session else alone + seconds
        if one.turn(now, session, 0) is Turn.SWITCH:
            assert agreed or (not session and alone >= ALONE_S)
