"""Settings at run time: requests that set and undo, the file that keeps them, and what the NOC is told.

Order of a change: checked, on disk, in force, told. A change that is refused at any of the first two leaves no trace.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from qmodd.clock import Clock
from qmodd.config import Config
from qmodd.durable import write_whole
from qmodd.events import EventLog
from qmodd.keys.conversation import Blocking
from qmodd.messages import Role, Setting
from qmodd.outbox import Outbox
from qmodd.requests import Arguments, Handler, Refusal, requesting
from qmodd.settings.catalogue import Applies
from qmodd.settings.force import Composed, compose, with_values
from qmodd.settings.overrides import FILE, Damaged, Override, Overrides
from qmodd.settings.tell import message
from qmodd.settings.tree import Leaf, NotAllowed, Value, tree, unknown, value_of

TOPIC = "settings/"
AT_ONCE: tuple[Applies, ...] = ("now", "block", "run")
Effect = Callable[[Config], None]


class SettingDesk:
    """Made before anything else of core: `in_force` is the configuration that the module is built with. `effects` are
    told of every new one; until `follow` nothing is published."""

    def __init__(self, file: Config, clock: Clock, blocking: Blocking) -> None:
        self.file = file
        self.leaves: Mapping[str, Leaf] = tree(file.module.role)
        self.effects: list[Effect] = []
        self._clock, self._blocking = clock, blocking
        self._path: Path = file.module.state_dir / FILE
        self._changing = asyncio.Lock()
        self._damaged = ""
        self._overrides = self._read()
        self._wanted = compose(file, self._overrides, self.leaves)
        self.in_force: Config = self._wanted.config
        self._outbox: Outbox | None = None
        self._events: EventLog | None = None

    def _read(self) -> Overrides:
        try:
            return Overrides.load(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Overrides()
        except (Damaged, OSError, UnicodeDecodeError) as e:
            self._damaged = f"{self._path.name}: {e}"[:400]
            return Overrides()

    def follow(self, outbox: Outbox, events: EventLog) -> None:
        """Where changes are told."""
        self._outbox, self._events = outbox, events

    # requests

    def handlers(self) -> Mapping[str, Handler]:
        """By the topic below the module's root: `set/<path>`."""
        return {f"set/{path}": partial(self.set, path) for path in self.leaves}

    def roles(self) -> Mapping[str, frozenset[Role]]:
        """Who may set what; one for the file only is refused to everybody, with its reason."""
        anybody: tuple[Role, ...] = ("maintainer", "operator")
        return {f"set/{path}": frozenset(leaf.roles or anybody) for path, leaf in self.leaves.items()}

    def why_unknown(self, path: str) -> str:
        """What to say of a path that is no setting here."""
        return str(unknown(path, self.file.module.role))

    async def set(self, path: str, arguments: Arguments) -> dict[str, Any]:
        """`value`: what is to be in force; or `file` true: the file's value again. Answers with the setting as it is
        then, and whether that is a change."""
        return await self._refusing(path, partial(self._set, self._leaf(path), arguments))

    async def undo(self, arguments: Arguments) -> dict[str, Any]:
        """The setting named `setting` as it was before its last change."""
        if set(arguments) != {"setting"} or not isinstance(path := arguments["setting"], str):
            raise Refusal("bad_arguments", "undo wants one argument: setting, e.g. keys.store_limit")
        leaf = self._leaf(path)
        return await self._refusing(path, partial(self._undo, leaf))

    def _leaf(self, path: str) -> Leaf:
        if path not in self.leaves:
            raise Refusal("unknown_setting", self.why_unknown(path))
        return self.leaves[path]

    async def _refusing(self, path: str, change: Callable[[], Awaitable[bool]]) -> dict[str, Any]:
        async with self._changing:
            try:
                changed = await change()
            except NotAllowed as e:
                refusal = _refusal(e)
            except OSError as e:
                refusal = Refusal("not_stored", f"{path}: cannot be kept: {e.strerror or e}; nothing was changed")
            except Refusal as e:
                refusal = e
            else:
                return {**self.message(path).model_dump(mode="json"), "changed": changed}
        self._event("setting.refused", {"setting": path, "code": refusal.code, "why": str(refusal)[:480], "by": who()})
        raise refusal

    async def _set(self, leaf: Leaf, arguments: Arguments) -> bool:
        now = self._overrides.of(leaf.path).now
        if set(arguments) == {"file"} and arguments["file"] is True:
            if now is None:
                return False
            return await self._change(leaf, self._overrides.set(leaf.path, None), "file")
        if set(arguments) != {"value"}:
            raise NotAllowed("bad_arguments", f"set/{leaf.path} wants one argument: value, or file = true")
        default = value_of(self.file, leaf.path)
        value = leaf.check(arguments["value"], default)
        if now is not None and now.value == value and leaf.path not in self._wanted.ignored:
            return False
        at = self._clock.utc().isoformat(timespec="milliseconds")
        return await self._change(leaf, self._overrides.set(leaf.path, Override(value, who(), at, default)), "set")

    async def _undo(self, leaf: Leaf) -> bool:
        client = requesting()
        if client is not None and client.role not in leaf.roles:
            needed = " or ".join(sorted(leaf.roles)) or "nobody: it is in the file only"
            raise Refusal("not_allowed", f"undo of {leaf.path} needs {needed}; {client.name} is {client.role}")
        try:
            overrides = self._overrides.undo(leaf.path)
        except LookupError:
            why = f"{leaf.path} is {value_of(self.in_force, leaf.path)}: there is no change left to undo"
            raise Refusal("wrong_state", why) from None
        return await self._change(leaf, overrides, "undo")

    # a change

    async def _change(self, leaf: Leaf, overrides: Overrides, how: str) -> bool:
        """Raises NotAllowed, OSError; nothing has changed then."""
        wanted = self._composed(leaf, overrides)
        in_force = self.in_force
        if leaf.applies in AT_ONCE:
            in_force = with_values(in_force, {leaf.path: value_of(wanted.config, leaf.path)}, self.file)
        before = self.message(leaf.path)
        await self._blocking(write_whole, self._path, overrides.dump(), 0o600)
        self._overrides, self._wanted = overrides, wanted
        self._put_in_force(in_force)
        after = self.message(leaf.path)
        self._publish(leaf.path)
        fields = {"setting": leaf.path, "how": how, "by": who(), "value": _wanted(after), "before": _wanted(before)}
        self._event("setting.changed", {**fields, "applies": leaf.applies, "unit": leaf.unit})
        return True

    def _composed(self, leaf: Leaf, overrides: Overrides) -> Composed:
        """Raises NotAllowed when the new value, or another one because of it, could not be in force."""
        wanted = compose(self.file, overrides, self.leaves)
        for path, why in wanted.ignored.items():
            if path == leaf.path and overrides.of(path).now is not None:
                raise NotAllowed("conflict", why)
            if path not in self._wanted.ignored:
                raise NotAllowed("conflict", f"{leaf.path}: {path}, which was set, would not go with it: {why}"[:480])
        return wanted

    def _put_in_force(self, config: Config) -> None:
        if config != self.in_force:
            self.in_force = config
            for effect in self.effects:
                effect(config)

    async def begin_session(self) -> None:
        """The module comes up from dark: what has waited for that is in force from here on."""
        async with self._changing:
            self._begin_session()

    def _begin_session(self) -> None:
        waiting = [p for p in self.leaves if self.leaves[p].applies == "session" and self._pending(p) is not None]
        if not waiting:
            return
        values = {path: value_of(self._wanted.config, path) for path in waiting}
        try:
            config = with_values(self.in_force, values, self.file)
        except NotAllowed as e:
            self._event("setting.ignored", {"setting": ", ".join(waiting)[:200], "why": str(e)})
            return
        self._put_in_force(config)
        for path, value in values.items():
            self._publish(path)
            self._event("setting.applied", {"setting": path, "value": value})

    # what is told

    def _pending(self, path: str) -> Value | None:
        wanted = value_of(self._wanted.config, path)
        return wanted if wanted != value_of(self.in_force, path) else None

    def message(self, path: str) -> Setting:
        """One setting as it is."""
        return message(
            self.leaves[path],
            value_of(self.file, path),
            value_of(self.in_force, path),
            self._pending(path),
            self._overrides.of(path),
            self._wanted.ignored.get(path, ""),
        )

    def open(self) -> None:
        """At the start of core: all settings, what cannot be used, and what was changed without having been told."""
        if self._damaged:
            self._path.replace(self._path.with_suffix(".damaged"))
            self._event("setting.file_damaged", {"why": self._damaged})
        for path, why in self._wanted.ignored.items():
            self._event("setting.ignored", {"setting": path, "why": why[:480]})
        assert self._outbox is not None
        there = {s.removeprefix(TOPIC): p for s, p in self._outbox.retained(TOPIC).items() if p}
        for path in sorted(there.keys() - self.leaves.keys()):
            self._outbox.put(f"settings/{path}", b"", retain=True, kind="state")
        for path in self.leaves:
            self._catch_up(path, there.get(path))
            if there.get(path) != self.message(path).payload():
                self._publish(path)

    def _catch_up(self, path: str, payload: bytes | None) -> None:
        """The process may have ended between the file and the outbox, or been started again for what waits for it."""
        now = self.message(path)
        told = _told(payload)
        if told.get("set_at", "") != now.set_at:
            fields = {"setting": path, "how": "restart", "by": now.set_by, "value": now.value}
            self._event("setting.changed", {**fields, "before": told.get("value"), "applies": now.applies})
        elif (waited := told.get("pending")) is not None and now.value == waited:
            self._event("setting.applied", {"setting": path, "value": now.value})

    def _publish(self, path: str) -> None:
        if self._outbox is not None:
            self._outbox.put(f"settings/{path}", self.message(path).payload(), retain=True, kind="state")

    def _event(self, name: str, fields: dict[str, Any]) -> None:
        if self._events is not None:
            self._events.record(name, fields)


def who() -> str:
    """Name of the client that asked."""
    client = requesting()
    return client.name if client else "local"


def _wanted(setting: Setting) -> Value:
    return setting.value if setting.pending is None else setting.pending


def _told(payload: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(payload or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(e: NotAllowed) -> Refusal:
    match e.code:
        case "out_of_range":
            return Refusal("out_of_range", f"{e}; nothing was changed", e.limit)
        case "file_only":
            return Refusal("file_only", str(e))
        case "conflict":
            return Refusal("conflict", f"{e}; nothing was changed")
        case _:
            return Refusal("bad_arguments", str(e))
