"""`qmodctl optimise`: the source's settings with most key on the link as measured, proposed and, if wanted, set."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from qmodd.ctl_client import Session
from qmodd.ctl_errors import CtlError
from qmodd.keys.estimation import Proof
from qmodd.messages import CalibrationRecord, Kpi
from qmodd.rate.model import rates
from qmodd.rate.optimise import RANGES, Proposal, optimise, settings_of
from qmodd.rate.system import Keys, Receiver, Source, System

# What belongs to the source; the basis splitter is glass, and stays.
SETTINGS = ("mu_signal", "decoy_ratio", "p_decoy", "p_x")
_STEP = 3  # decimals that a proposal is rounded to
_FIT_ROUNDS = 4


@dataclass(frozen=True)
class Link:
    """As measured. `qber_z`, `qber_x` None: the planner's usual errors are taken."""

    fibre_db: float
    qber_z: float | None = None
    qber_x: float | None = None


def add_optimise_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    p = commands.add_parser(
        "optimise",
        parents=[common],
        help="intensities, probabilities and basis bias for the link as measured",
        description="Reads what both modules have measured (loss of the fibre, error rates) and what the transmitter "
        "is set to, searches for the settings with most secret key a second, and sets them with --apply.",
        epilog="example: qmodctl optimise QM-A-0001 QM-B-0001 --apply",
    )
    p.add_argument("module", help="the transmitter")
    p.add_argument("receiver", help="the receiver")
    p.add_argument("--loss-db", type=float, metavar="A", help="of the fibre, instead of the measured one")
    p.add_argument(
        "--least-mu", type=float, default=0.25, metavar="N", help="least signal intensity that calibrations can see"
    )
    p.add_argument("--keep", nargs="+", default=[], choices=SETTINGS, metavar="NAME", help="settings that stay")
    p.add_argument("--apply", action="store_true", help="set what is proposed (needs --identity)")


async def run_optimise(s: Session) -> int:
    """Exit status 0: proposed, and set where that was asked for; 1: a setting was refused."""
    a = s.arguments
    sender = (await s.ctl.retained(a.module, "settings/#"))[a.module]
    link = await _measured(s, a.receiver, a.loss_db)
    system = fitted(system_of(sender), link)
    ranges = dict(RANGES) | {"mu_signal": (a.least_mu, RANGES["mu_signal"][1])}
    kept = ("basis_split", *a.keep)
    proposal = await asyncio.to_thread(optimise, system, link.fibre_db, fixed=kept, ranges=ranges)
    wanted = changes(settings_of(system), proposal)
    refused: list[str] = []
    if a.apply:
        refused = await _apply(s, a.module, wanted)
    _show(s, link, proposal, settings_of(system), wanted, refused)
    return 1 if refused else 0


async def _measured(s: Session, receiver: str, loss_db: float | None) -> Link:
    said = (await s.ctl.retained(receiver, "calibration/path_loss", "kpi"))[receiver]
    if loss_db is None:
        loss_db = _fibre_db(receiver, said.get("calibration/path_loss"))
    if not 0.0 <= loss_db <= 200.0:
        raise CtlError(2, f"loss {loss_db:g} dB: 0 to 200 dB")
    return Link(loss_db, *_errors(said.get("kpi")))


def _fibre_db(receiver: str, payload: bytes | None) -> float:
    try:
        record = CalibrationRecord.model_validate_json(payload or b"")
        return max(0.0, float(record.value["fibre_db"]))  # type: ignore[arg-type] # told by the model's check below
    except (ValidationError, KeyError, TypeError, ValueError):
        raise CtlError(
            3, f"{receiver} has not measured the loss of its path (calibration path_loss); give --loss-db"
        ) from None


def _errors(payload: bytes | None) -> tuple[float | None, float | None]:
    """QBER in Z and X of the newest quarter of an hour that has them."""
    try:
        kpi = Kpi.model_validate_json(payload or b"")
    except ValidationError:
        return None, None
    for b in reversed(kpi.bins_15min):
        if b.qber_z is not None and b.qber_x is not None:
            return b.qber_z, b.qber_x
    return None, None


def system_of(settings: Mapping[str, bytes]) -> System:
    """The link's parameters with what the transmitter says that it is set to. Raises CtlError if it does not."""
    values: dict[str, Any] = {}
    for topic, payload in settings.items():
        try:
            values[topic.removeprefix("settings/")] = json.loads(payload)["value"]
        except (ValueError, KeyError, TypeError):
            continue
    try:
        mu, ratio = float(values["source.mu_signal"]), float(values["source.decoy_ratio"])
        p_decoy, p_x = float(values["source.p_decoy"]), float(values["source.p_x"])
        source = Source(mu=(mu, mu * ratio), p_mu=(1.0 - p_decoy, p_decoy), p_x=p_x)
        keys = Keys(proof=Proof(values["keys.proof"]), n_z=int(values["keys.n_z"]))
    except KeyError as e:
        raise CtlError(3, f"the module does not tell its setting {e.args[0]}; is it a transmitter?") from None
    except (TypeError, ValueError) as e:
        raise CtlError(3, f"the module's settings do not fit: {e}") from None
    return System(name="as measured", source=source, receiver=Receiver(), keys=keys)


def fitted(system: System, link: Link) -> System:
    """Optical errors such that the planner gives the measured error rates with the present settings."""
    for _ in range(_FIT_ROUNDS):
        r = rates(system, link.fibre_db)
        error_z, error_x = system.source.error_z, system.receiver.error_x
        if link.qber_z is not None:
            error_z = min(0.2, max(0.0, error_z + link.qber_z - r.qber_z))
        if link.qber_x is not None:
            error_x = min(0.2, max(0.0, error_x + link.qber_x - r.qber_x))
        system = system.model_copy(
            update={
                "source": system.source.model_copy(update={"error_z": error_z}),
                "receiver": system.receiver.model_copy(update={"error_x": error_x}),
            }
        )
    return system


def changes(present: Mapping[str, float], proposal: Proposal) -> dict[str, float]:
    """What is to be set, rounded; nothing where the proposal brings nothing."""
    if proposal.expectation.skr_bps <= proposal.present.skr_bps:
        return {}
    rounded = {name: round(proposal.settings[name], _STEP) for name in SETTINGS}
    return {name: value for name, value in rounded.items() if not math.isclose(value, present[name], abs_tol=1e-3)}


async def _apply(s: Session, module: str, wanted: Mapping[str, float]) -> list[str]:
    refused = []
    for name, value in wanted.items():
        reply = await s.ctl.set(s.client(), module, f"source.{name}", value)
        if not reply.ok:
            refused.append(f"source.{name} = {value:g}: {reply.error.message if reply.error else 'refused'}")
    return refused


def _show(
    s: Session,
    link: Link,
    proposal: Proposal,
    present: Mapping[str, float],
    wanted: Mapping[str, float],
    refused: list[str],
) -> None:
    now, then = proposal.present.skr_bps, proposal.expectation.skr_bps
    if s.as_json:
        out = {
            "fibre_db": link.fibre_db,
            "qber_z": link.qber_z,
            "qber_x": link.qber_x,
            "present": {n: present[n] for n in SETTINGS},
            "proposed": {n: wanted.get(n, present[n]) for n in SETTINGS},
            "present_skr_bps": now,
            "proposed_skr_bps": then,
            "applied": bool(s.arguments.apply) and not refused,
            "refused": refused,
        }
        sys.stdout.write(json.dumps(out) + "\n")
        return
    lines = [f"fibre {link.fibre_db:.2f} dB; expected now {now / 1e3:.1f} kbit/s, then {then / 1e3:.1f} kbit/s"]
    lines += [f"source.{n:<12} {present[n]:.3f} -> {value:.3f}" for n, value in wanted.items()]
    if not wanted:
        lines.append("nothing to gain: the settings stay")
    elif not s.arguments.apply:
        lines.append("not set; --apply sets it, and it takes effect when the module comes up from dark")
    lines += [f"refused: {line}" for line in refused]
    for line in lines:
        s.out.print(line, markup=False, highlight=False)
