"""`qmodd fru`: what module this is, read from and written to the EEPROM that travels with it; without the daemon."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from drivers.chips.fru import Fru
    from qmodd.config import Config
    from qmodd.field.eeprom import Contents, Memory

DONE, NOT_IN_ORDER, WRONG, UNREACHABLE = 0, 1, 2, 3
# FRU text by its option: `--product-serial` and so on.
TEXTS = (
    "board_manufacturer",
    "board_product",
    "board_serial",
    "board_part_number",
    "product_manufacturer",
    "product_name",
    "product_part_number",
    "product_version",
    "product_serial",
    "asset_tag",
)
_EXAMPLES = """examples:
  qmodd fru show --config /etc/qmodd/alice.toml
  qmodd fru write --config /etc/qmodd/alice.toml --product-serial QA0849981 --hardware-revision 2
  qmodd fru write --config /etc/qmodd/alice.toml --factory QA0849981.json
  qmodd fru verify --config /etc/qmodd/alice.toml --json
"""


class WrongValue(ValueError):
    """A value that cannot be written; names field, value and limit."""


def add_parser(subparsers: Any) -> None:
    p = subparsers.add_parser(
        "fru",
        help="the module's EEPROM: who it is, and its factory record",
        description="Shows, writes or verifies IPMI FRU data and the factory record behind them. Stop the daemon "
        "first: a running one shows them with `qmodctl do MODULE fru`. Status 1: what was read is not in order, or the "
        "part is write-protected.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, metavar="FILE", required=True, help="TOML file of the module")
    common.add_argument("--json", action="store_true", help="one JSON object as the last line on stdout")
    verbs = p.add_subparsers(dest="verb", metavar="show|write|verify", required=True)
    verbs.add_parser("show", parents=[common], help="all fields and the factory record's slot")
    verbs.add_parser("verify", parents=[common], help="checksums, digests, serials, and the file module.factory")
    write = verbs.add_parser("write", parents=[common], help="change the given fields; the others stay")
    for name in TEXTS:
        write.add_argument(f"--{name.replace('_', '-')}", metavar="TEXT", help="ASCII, at most 63 characters")
    write.add_argument("--made", metavar="TIME", help="when the board was made, ISO 8601, UTC, to the minute")
    write.add_argument("--hardware-revision", type=int, metavar="N", help="0 to 255")
    write.add_argument("--factory", type=Path, metavar="FILE", help="the module's factory record (JSON)")
    p.set_defaults(run=command)


def command(args: argparse.Namespace) -> int:
    """Exit status: 0 done, 1 not in order or write-protected, 2 wrong value or configuration, 3 not reachable."""
    from drivers.errors import DriverError, Refused
    from qmodd.config import ConfigError, load
    from qmodd.daemon import check_drivers, only_core

    try:
        config = load(args.config)
        check_drivers(config, args.config)
        with only_core(config.module.state_dir):
            status, told = asyncio.run(on_hardware(config, lambda memory: perform(memory, config, args)))
    except ConfigError as e:
        return _fail(f"{e}{_hint(str(e))}", WRONG)
    except WrongValue as e:
        return _fail(str(e), WRONG)
    except Refused as e:
        return _fail(str(e), NOT_IN_ORDER)
    except DriverError as e:
        return _fail(str(e), UNREACHABLE)
    show(told, args.json)
    return status


async def on_hardware(
    config: Config, work: Callable[[Memory], Awaitable[tuple[int, dict[str, Any]]]]
) -> tuple[int, dict[str, Any]]:
    """Opens the EEPROM alone. Raises ConfigError when the configuration has none, drivers.errors.DriverError."""
    from drivers.bus.pool import BusPool
    from drivers.bus.real import real_libraries
    from drivers.registry import create
    from qmodd.clock import SystemClock
    from qmodd.config import ConfigError

    found = next((d for d in config.device if d.role == "fru"), None)
    if found is None:
        raise ConfigError(f"{config.module.serial}: no device plays the role fru, so there is no EEPROM")
    buses = BusPool(real_libraries(), SystemClock().monotonic)
    device = create(found.driver, found.name, found.address, buses, found.options)
    try:
        await device.open()
        return await work(cast("Memory", device))
    finally:
        await device.close()
        await buses.close()


async def perform(memory: Memory, config: Config, args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """What was asked; exit status, and what is there afterwards. Raises WrongValue, drivers.errors.DriverError."""
    from qmodd.field.eeprom import read_eeprom

    if args.verb == "write":
        await _write(memory, args)
    contents = await read_eeprom(memory)
    faults = list(contents.faults)
    if args.verb == "verify":
        faults += verify(contents, config)
    told = {**_told(contents), "controller": config.module.serial, "faults": faults, "ok": not faults}
    return (NOT_IN_ORDER if faults else DONE), told


def verify(contents: Contents, config: Config) -> list[str]:
    """What `show` does not look at: whether it is complete and belongs together."""
    from qmodd.field.assembly import NotIdentified, identify

    faults = []
    if contents.fru is None and not any(f.startswith("FRU") for f in contents.faults):
        faults.append("FRU: blank")
    elif contents.fru is not None and contents.fru.record is None:
        faults.append("FRU: no qmodd multirecord")
    if contents.factory is None:
        faults.append("factory record: none in either slot")
    try:
        file = json.loads(config.module.factory.read_text())
        found = identify(contents, file)
    except (OSError, ValueError) as e:
        return [*faults, f"module.factory {config.module.factory}: {e}"]
    except NotIdentified as e:
        return [*faults, str(e)]
    # A file of another module is no fault of this one: it brings its own record.
    return faults + [why for name, why in found.notes if name == "factory.differs"]


async def _write(memory: Memory, args: argparse.Namespace) -> None:
    from drivers.chips.factory_slots import SlotError
    from drivers.chips.fru import Fru, FruError
    from qmodd.field.eeprom import new_record, read_eeprom, write_factory, write_fru

    before = await read_eeprom(memory)
    record = _factory(args.factory) if args.factory is not None else None
    wanted = _changed(before.fru or Fru(), args)
    serial = wanted.product_serial
    if record is not None and serial and record.get("serial") != serial:
        raise WrongValue(f"--factory: the record is of {record.get('serial')!r}; the module's serial is {serial!r}")
    if record is not None and not serial:
        wanted = replace(wanted, product_serial=str(record["serial"]))
    try:
        # Refused before anything is written, whichever of both does not fit.
        _encodable(wanted, record)
        if record is not None:
            await write_factory(memory, record, int(record.get("schema", 1)))
        now = (await read_eeprom(memory)).factory
        revision = args.hardware_revision
        if wanted.record is None:
            wanted = replace(wanted, record=new_record(revision if revision is not None else 0, now))
        else:
            digest = new_record(0, now).calibration_sha256
            wanted = replace(wanted, record=replace(wanted.record, calibration_sha256=digest))
        await write_fru(memory, wanted)
    except (FruError, SlotError) as e:
        raise WrongValue(str(e)) from e


def _encodable(wanted: Fru, record: dict[str, Any] | None) -> None:
    """Raises FruError, SlotError."""
    from drivers.chips.factory_slots import encode_slot
    from drivers.chips.fru import encode
    from qmodd.field.eeprom import record_text

    encode(wanted)
    if record is not None:
        encode_slot(record_text(record), int(record.get("schema", 1)), 1)


def _changed(fru: Fru, args: argparse.Namespace) -> Fru:
    """Raises WrongValue, naming the option and its limit."""
    from drivers.chips.fru import MAX_TEXT
    from qmodd.field.assembly import SERIAL

    for name in TEXTS:
        text = getattr(args, name)
        if text is None:
            continue
        if not text.isascii() or not text.isprintable() or len(text) > MAX_TEXT:
            raise WrongValue(f"--{name.replace('_', '-')} {text!r}: at most {MAX_TEXT} printable ASCII characters")
        fru = replace(fru, **{name: text})
    if args.product_serial is not None and not SERIAL.match(args.product_serial):
        raise WrongValue(f"--product-serial {args.product_serial!r}: 1 to 32 letters, digits, - or _")
    if args.made is not None:
        fru = replace(fru, made=_made(args.made))
    if (revision := args.hardware_revision) is not None:
        if not 0 <= revision <= 255:
            raise WrongValue(f"--hardware-revision {revision}: 0 to 255")
        if fru.record is not None:
            fru = replace(fru, record=replace(fru.record, hardware_revision=revision))
    return fru


def _made(text: str) -> datetime:
    from drivers.chips.fru import EPOCH

    try:
        made = datetime.fromisoformat(text)
    except ValueError:
        raise WrongValue(f"--made {text!r}: a time in ISO 8601, such as 2026-03-02T09:00Z") from None
    made = made.replace(tzinfo=UTC) if made.tzinfo is None else made.astimezone(UTC)
    last = EPOCH.replace(year=2027, month=11, day=24)
    if not EPOCH <= made <= last:
        raise WrongValue(f"--made {text!r}: {EPOCH:%Y-%m-%d} to {last:%Y-%m-%d} fits into the FRU's three bytes")
    return made.replace(second=0, microsecond=0)


def _factory(path: Path) -> dict[str, Any]:
    from pydantic import ValidationError

    from calibration.factory import FactoryRecord

    try:
        raw = json.loads(path.read_text())
        if not isinstance(raw, dict):
            raise WrongValue(f"--factory {path}: no JSON object")
        FactoryRecord.from_mapping(raw)
    except OSError as e:
        raise WrongValue(f"--factory {path}: cannot be read: {e.strerror}") from e
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise WrongValue(f"--factory {path}: {where}: {first['msg']} (got {first['input']!r})") from e
    except json.JSONDecodeError as e:
        raise WrongValue(f"--factory {path}: no JSON: {e}") from e
    return raw


def _told(contents: Contents) -> dict[str, Any]:
    from qmodd.app.identify import assembly_report

    out = assembly_report(None, contents)
    out["module"] = contents.serial
    found = contents.factory_mapping()
    out["factory_record"] = found.get("serial", "") if found else ""
    out.pop("factory_sha256", None)
    return out


def show(told: dict[str, Any], as_json: bool) -> None:
    """One JSON object on stdout, or lines for people."""
    if as_json:
        sys.stdout.write(json.dumps(told) + "\n")
        return
    for area, values in (told["fru"] or {}).items():
        for name, value in values.items():
            sys.stdout.write(f"{area + ' ' + name.replace('_', ' '):28} {value}\n")
    slot = told.get("slot")
    text = f"of {told['factory_record']}, slot {slot['slot']}, sequence {slot['sequence']}" if slot else "none"
    sys.stdout.write(f"{'factory record':28} {text}\n")
    for fault in told["faults"]:
        sys.stdout.write(f"NOT IN ORDER: {fault}\n")


def _fail(text: str, status: int) -> int:
    sys.stderr.write(f"qmodd fru: {text}\n")
    return status


def _hint(text: str) -> str:
    return ": stop it first, or ask it: qmodctl do MODULE fru" if "another core runs" in text else ""
