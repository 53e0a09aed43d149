"""Who is there: every device has answered as itself, tells its serial number if it has one, and holds its registers."""

from __future__ import annotations

from drivers.chips import factory_slots, fru
from drivers.chips.eeprom24c64 import Eeprom24c64
from drivers.roles import Checked
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, skipped
from qmodd.selftest.power_on_common import NONE, YES, device, guarded, of_device

# Drivers of parts that carry a serial number; chips do not.
SERIALS = ("mecom_tec", "itla", "symbol_source", "time_tagger", "pmbus", "counter", "cryostat")
SWAPPED = "another part, or none, answers at its address: look at the connector, then at the part"


async def identities(bench: Bench) -> list[Finding]:
    """What opening the devices has found; a device that did not open is named here."""
    out = []
    for role, part in bench.module.devices.items():
        identity = bench.module.identities.get(role)
        out.append(of_device(bench, role, f"identity.{part.name}", float(identity is not None), YES, hint=SWAPPED))
        if identity is not None and identity.driver in SERIALS:
            known = float(bool(identity.serial.strip("0 ")))
            hint = f"serial number reads {identity.serial!r}"
            out.append(of_device(bench, role, f"serial.{part.name}", known, YES, hint=hint))
    return out


async def registers(bench: Bench) -> list[Finding]:
    """Registers as the drivers set them, and test patterns where they do no harm."""
    out: list[Finding] = []
    for role in bench.module.devices:
        if isinstance(checked := device(bench, role), Checked):
            out += await guarded(bench, role, f"registers.{bench.part(role)}", _registers(bench, role, checked))
    return out


async def _registers(bench: Bench, role: str, checked: Checked) -> list[Finding]:
    wrong = await checked.check_registers()
    name = f"registers.{bench.part(role)}"
    return [of_device(bench, role, name, len(wrong), NONE, "registers", "; ".join(wrong)[:300])]


async def eeprom(bench: Bench) -> list[Finding]:
    """Checksums of the FRU areas and of the multirecord, and that a serial number is in them."""
    memory = device(bench, "fru")
    if not isinstance(memory, Eeprom24c64):
        return [skipped("fru_checksums", "fru_eeprom", "this module has no such part")]
    return await guarded(bench, "fru", "fru", _eeprom(bench, memory))


async def _eeprom(bench: Bench, memory: Eeprom24c64) -> list[Finding]:
    image = await memory.read(0, memory.size)
    data = image[: factory_slots.FRU_BYTES]
    if data.strip(b"\xff") == b"":
        hint = "empty: write its data (`qmodd fru`)"
        return [of_device(bench, "fru", "fru_checksums", 0.0, YES, hint=hint)]
    try:
        found = fru.decode(data)
    except fru.FruError as error:
        return [of_device(bench, "fru", "fru_checksums", 0.0, YES, hint=str(error))]
    whole = of_device(bench, "fru", "fru_checksums", 1.0, YES)
    wanted = bench.module.config.module.serial
    hint = f"product serial number {found.product_serial!r}; this module is configured as {wanted}"
    serial = of_device(bench, "fru", "fru_serial", float(bool(found.product_serial)), YES, hint=hint)
    return [whole, serial, *_slots(bench, image)]


def _slots(bench: Bench, image: bytes) -> list[Finding]:
    """The factory record travels in two slots; both that were written are whole, and one is in force."""
    slot, faults = factory_slots.in_force(image)
    hint = "; ".join(faults)
    out = [of_device(bench, "fru", "factory_slots_broken", len(faults), NONE, "slots", hint)]
    if slot is None and not faults:
        return [*out, skipped("factory_slot", bench.part("fru"), "the factory record is not kept in this part")]
    return [*out, of_device(bench, "fru", "factory_slot", float(slot is not None), YES, hint=hint)]


CHECKS: tuple[Check, ...] = (
    Check("identities", Level.POWER_ON, identities),
    Check("registers", Level.POWER_ON, registers),
    Check("eeprom", Level.POWER_ON, eeprom, parts=("fru_eeprom",)),
)
