"""Settings in any order of sets, undos, restarts, new files and kills: in force, on disk and told are one."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qmodd.app import setting_desk
from qmodd.config import Config
from qmodd.durable import write_whole
from qmodd.requests import Refusal
from qmodd.settings.tree import Value, tree, value_of
from tests.app.setting_bench import HOT, LIMIT, MODE, RAMP, TARGET, Bench


class Killed(BaseException):
    """The process ends here."""


PATHS = (LIMIT, TARGET, RAMP, HOT, MODE, "control.tec_current_limit_a", "safety.tec_max_a", "source.p_x")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    LIMIT: st.integers(50, 5000),
    TARGET: st.floats(10.0, 50.0).map(lambda x: round(x, 1)),
    RAMP: st.floats(0.0, 1.0),
    HOT: st.floats(25.0, 70.0).map(lambda x: round(x, 1)),
    MODE: st.sampled_from(["auto", "throughput", "efficiency", "fast"]),
    "control.tec_current_limit_a": st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.4, 3.5]),
    "safety.tec_max_a": st.sampled_from([0.6, 1.2, 1.8, 2.2, 2.5, 3.0]),
    "source.p_x": st.floats(0.0, 1.0),
}
FILES: dict[str, st.SearchStrategy[Any]] = {
    LIMIT: st.integers(100, 5000),
    HOT: st.sampled_from([40.0, 50.0, 60.0]),
    TARGET: st.sampled_from([25.0, 30.0, 35.0]),
}


class Life(RuleBasedStateMachine):
    """Against a stack a setting: what was set and not undone."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="settings"))
        self.bench = Bench(self.directory)
        self.stacks: dict[str, list[Value | None]] = {path: [None] for path in PATHS}
        self.note()

    def note(self) -> None:
        """What may change at a start, or with a session, only."""
        leaves = tree("alice").values()
        self.of_session = {leaf.path: self.bench.value(leaf.path) for leaf in leaves if leaf.applies == "session"}
        self.of_start = {leaf.path: self.bench.value(leaf.path) for leaf in leaves if leaf.applies == "restart"}

    def teardown(self) -> None:
        self.bench.close()
        shutil.rmtree(self.directory)

    def ask(self, what: Callable[[], Any]) -> bool | None:
        """Whether it changed something; None: refused, and then nothing is different from before."""
        b = self.bench
        before = (b.kept(), b.desk.in_force, b.outbox.retained())
        try:
            answer = asyncio.run(what())
        except Refusal:
            assert (b.kept(), b.desk.in_force, b.outbox.retained()) == before
            return None
        return bool(answer["changed"])

    @rule(data=st.data(), path=st.sampled_from(PATHS))
    def set(self, data: st.DataObject, path: str) -> None:
        value = data.draw(VALUES[path])
        if self.ask(lambda: self.bench.set(path, value)):
            self.stacks[path].append(value)

    @rule(path=st.sampled_from(PATHS))
    def back_to_the_file(self, path: str) -> None:
        if self.ask(lambda: self.bench.desk.set(path, {"file": True})):
            self.stacks[path].append(None)

    @rule(path=st.sampled_from(PATHS))
    def undo(self, path: str) -> None:
        changed = self.ask(lambda: self.bench.undo(path))
        if changed is None:
            # Nothing to undo, or what was before does not fit any more.
            assert len(self.stacks[path]) == 1 or path not in (LIMIT, MODE, "source.p_x")
        else:
            self.stacks[path].pop()

    @rule()
    def restart(self) -> None:
        self.bench.start()
        self.note()

    @rule()
    def next_session(self) -> None:
        of_start = self.of_start
        asyncio.run(self.bench.desk.begin_session())
        self.note()
        self.of_start = of_start

    @rule(data=st.data(), path=st.sampled_from(sorted(FILES)))
    def another_file(self, data: st.DataObject, path: str) -> None:
        section, _, name = path.partition(".")
        self.bench.sections[section] = {**self.bench.sections.get(section, {}), name: data.draw(FILES[path])}
        self.bench.start()
        self.note()

    @rule(data=st.data(), path=st.sampled_from(PATHS), late=st.booleans())
    def killed_while_it_is_kept(self, data: st.DataObject, path: str, late: bool) -> None:
        """Before the file is the new one, or right afterwards, when nobody has been told."""

        def kill(*arguments: Any) -> None:
            if late:
                write_whole(*arguments)
            raise Killed

        value, before, events = data.draw(VALUES[path]), self.bench.kept(), len(self.bench.recorded("setting.changed"))
        setting_desk.write_whole = kill  # type: ignore[attr-defined]
        try:
            self.ask(lambda: self.bench.set(path, value))
        except Killed:
            if late:
                self.stacks[path].append(value)
        finally:
            setting_desk.write_whole = write_whole  # type: ignore[attr-defined]
        changed = self.bench.kept() != before
        assert not changed or late
        self.bench.start()
        self.note()
        assert len(self.bench.recorded("setting.changed")) == events + changed

    @invariant()
    def what_is_set_is_kept(self) -> None:
        raw = json.loads(self.bench.kept() or b'{"settings": {}}')["settings"]
        for path, stack in self.stacks.items():
            now = raw.get(path, {}).get("now")
            assert (now and now["value"]) == stack[-1]

    @invariant()
    def what_is_in_force_is_set_or_the_file_s(self) -> None:
        for path, told in self.bench.retained().items():
            value, file = self.bench.value(path), value_of(self.bench.file, path)
            assert (told.value, told.default) == (value, file)
            wanted = value if told.pending is None else told.pending
            if path in self.stacks and told.origin == "set":
                assert wanted == self.stacks[path][-1]
            else:
                assert wanted == file

    @invariant()
    def what_waits_stays_as_it_was(self) -> None:
        for path, value in (self.of_session | self.of_start).items():
            assert self.bench.value(path) == value

    @invariant()
    def a_safety_limit_is_never_looser_than_the_file(self) -> None:
        assert self.bench.value(HOT) <= value_of(self.bench.file, HOT)  # type: ignore[operator]
        assert self.bench.value(RAMP) <= value_of(self.bench.file, RAMP)  # type: ignore[operator]

    @invariant()
    def it_is_a_configuration(self) -> None:
        assert Config.model_validate(self.bench.desk.in_force.model_dump()) == self.bench.desk.in_force

    @precondition(lambda self: not any(len(s) > 1 for s in self.stacks.values()))
    @invariant()
    def nothing_set_is_the_file(self) -> None:
        wanted = {path: told.pending for path, told in self.bench.retained().items() if told.pending is not None}
        assert all(value_of(self.bench.file, path) == value for path, value in wanted.items())


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)
