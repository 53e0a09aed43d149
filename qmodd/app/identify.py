"""At the start of a session: which photonic module is in. Its own factory record and its own records come into force;
nothing of the one before goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from calibration.context import CalibrationContext
from drivers.chips.fru import Fru
from drivers.errors import DriverError
from drivers.roles import Identity
from qmodd.app.failures import NotReady
from qmodd.field.assembly import Assembly, NotIdentified, identify, replaced
from qmodd.field.eeprom import Contents, Memory, read_eeprom
from qmodd.field.records import ModuleRecords
from qmodd.messages import AssemblyReport

if TYPE_CHECKING:
    from qmodd.app.wiring import Wiring

FRU = "fru"
PEER = "far module"
# Parts on buses of their own that a module cannot be without: it is out when none of them answers.
WITNESSES = ("platform", "rail", "submount", FRU)


def firmware_sha256(identities: Mapping[str, Identity]) -> str:
    """Over role, driver, model, serial number and firmware of every device: another one means other calibrations."""
    lines = (f"{r}\0{i.driver}\0{i.model}\0{i.serial}\0{i.firmware}\n" for r, i in sorted(identities.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class Bay:
    """The place that the photonic module is in. `assembly` is the module of this session or the last; `out` says since
    its parts were last looked for in vain."""

    def __init__(self, wiring: Wiring, library: ModuleRecords) -> None:
        self._wiring = wiring
        self.library = library
        self.assembly: Assembly | None = None
        self.contents: Contents | None = None
        self.out = False
        # Receiver: calibrations that hold for one transmitter's individual only; and what to do when it is another.
        self.rests_on_peer: tuple[str, ...] = ()
        self.on_peer_replaced: Callable[[str], None] = lambda why: None

    @property
    def serial(self) -> str:
        """Of the module that is in, or was last; "" before any was seen."""
        return self.library.serial

    async def identify(self, identities: Mapping[str, Identity], context: CalibrationContext) -> None:
        """Before anything is switched on. Raises NotReady, drivers.errors.DriverError."""
        wiring, before = self._wiring, self.library.serial
        memory = wiring.module.devices.get(FRU)
        self.contents = await read_eeprom(cast(Memory, memory)) if memory is not None else None
        try:
            assembly = self.assembly = identify(self.contents, read_factory_file(wiring))
        except NotIdentified as e:
            raise NotReady(str(e)) from e
        self.out = False
        old_names = set(wiring.records.names())
        swapped = self.library.select(assembly.serial)
        wiring.factory = context.factory = assembly.factory
        wiring.engine.set_module(assembly.serial)
        for about, why in assembly.notes:
            fields = {"assembly": assembly.serial, "about": about, "why": why[:480]}
            wiring.events.record("module.note", fields)
        self._told(before, swapped, old_names)
        self._compare_devices(identities)
        self._compare_peer(wiring.engine.peer_module)
        wiring.outbox.put("assembly", AssemblyReport(**self.report()).payload(), retain=True, kind="state")
        wiring.publish_state()

    def _told(self, before: str, swapped: bool, old_names: set[str]) -> None:
        wiring, assembly = self._wiring, self.assembly
        assert assembly is not None
        kept = len(wiring.records.names())
        wiring.events.record(
            "module.identified",
            {
                "assembly": assembly.serial,
                "factory_record": assembly.source,
                "records": kept,
                "product": assembly.fru.product_name if assembly.fru else "",
            },
        )
        if not swapped:
            return
        why = f"its {kept} records are checked" if kept else "it is new here and gets its own calibration"
        wiring.events.record("module.swapped", {"old": before, "new": assembly.serial, "why": why})
        for listener in wiring.module_swapped:
            listener()
        for name in old_names - set(wiring.records.names()):
            wiring.outbox.put(f"calibration/{name}", b"", retain=True, kind="state")
        for name in wiring.records.names():
            if (record := wiring.records.active(name)) is not None:
                wiring.publish_record(record)

    def _compare_devices(self, identities: Mapping[str, Identity]) -> None:
        """A part that was replaced: the records that were taken with the old one are checked or redone by the walk,
        because they carry the digest over all serial numbers and firmware (`firmware_sha256`)."""
        before = self.library.devices()
        for change in replaced(before, identities):
            self._wiring.events.record(
                "device.replaced",
                {
                    "assembly": self.library.serial,
                    "device": self._wiring.module.devices[change.role].name,
                    "old": change.old,
                    "new": change.new,
                    "why": "records taken with the one before are checked, and redone where they do not hold",
                },
            )
        now = {role: identity.serial for role, identity in identities.items() if identity.serial}
        if now != before:
            self.library.note_devices({**before, **now})

    def hear_peer(self, serial: str) -> None:
        """The far photonic module is this one. With another than before, what rests on it is redone by a new start."""
        if self.library.serial and self._compare_peer(serial):
            self.on_peer_replaced(f"the far photonic module was replaced: {serial} is in now")

    def _compare_peer(self, serial: str) -> bool:
        """Whether records of this module were taken with another far module; they are then invalid, durably."""
        devices = self.library.devices()
        before = devices.get(PEER, "")
        if not serial or before == serial:
            return False
        why = f"taken with the far photonic module {before}; {serial} is in now"
        records = self._wiring.records
        hit = [n for n in self.rests_on_peer if before and records.active(n) is not None]
        for name in dict.fromkeys([*hit, *(d for n in hit for d in records.dependents(n))]):
            records.invalidate(name, why)
        self.library.note_devices({**devices, PEER: serial})
        if before:
            self._wiring.events.record("peer.replaced", {"old": before, "new": serial, "redone": ", ".join(hit)})
        return bool(hit)

    async def look_whether_out(self) -> bool:
        """After a session has failed: nothing of the module answers any more. Told once; what was not yet committed of
        its keys is dropped on both sides."""
        if not await self._answers():
            if not self.out:
                self.out = True
                why = f"no part of module {self.serial or '(not seen yet)'} answers: it is out, or without supply"
                self._wiring.events.record("module.removed", {"assembly": self.serial, "why": why})
                self._wiring.engine.drop_blocks(why)
            return True
        return False

    async def _answers(self) -> bool:
        """Whether any of the witnesses does."""
        module = self._wiring.module
        for role in WITNESSES:
            device = module.devices.get(role)
            if device is None:
                continue
            try:
                await _probe(role, device)
            except DriverError:
                continue
            return True
        return False

    def report(self) -> dict[str, Any]:
        """For the command `fru`: what the EEPROM said at the start of this session."""
        return {"controller": self._wiring.config.module.serial, **assembly_report(self.assembly, self.contents)}


def assembly_report(assembly: Assembly | None, contents: Contents | None) -> dict[str, Any]:
    """JSON-ready."""
    found = contents.fru if contents else None
    out: dict[str, Any] = {
        "module": assembly.serial if assembly else "",
        "factory_record": assembly.source if assembly else "",
        "factory_sha256": assembly.factory_sha256 if assembly else "",
        "faults": list(contents.faults) if contents else [],
        "fru": fru_dict(found) if found is not None else None,
    }
    if contents is not None and contents.factory is not None:
        slot = contents.factory
        out["slot"] = {"slot": slot.slot, "sequence": slot.sequence, "schema": slot.schema, "bytes": len(slot.text)}
    return out


def fru_dict(found: Fru) -> dict[str, Any]:
    """The FRU's fields by name, JSON-ready."""
    out: dict[str, Any] = {
        "board": {
            "manufacturer": found.board_manufacturer,
            "product": found.board_product,
            "serial": found.board_serial,
            "part_number": found.board_part_number,
            "made": found.made.isoformat(),
        },
        "product": {
            "manufacturer": found.product_manufacturer,
            "name": found.product_name,
            "part_number": found.product_part_number,
            "version": found.product_version,
            "serial": found.product_serial,
            "asset_tag": found.asset_tag,
        },
    }
    if found.record is not None:
        out["record"] = {
            "schema": found.record.schema,
            "hardware_revision": found.record.hardware_revision,
            "sequence": found.record.sequence,
            "calibration_sha256": found.record.calibration_sha256.hex(),
        }
    return out


def read_factory_file(wiring: Wiring) -> dict[str, Any]:
    """Raises NotReady when it can no longer be read."""
    path = wiring.config.module.factory
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise NotReady(f"module.factory {path} cannot be read: {e}") from e
    if not isinstance(found, dict):
        raise NotReady(f"module.factory {path} is no JSON object")
    return found


async def _probe(role: str, device: Any) -> None:
    if role == "platform":
        await device.read("interlock_ok")
    elif role == "rail":
        await device.read()
    elif role == "submount":
        await device.read_celsius()
    else:
        await device.read(0, 1)
