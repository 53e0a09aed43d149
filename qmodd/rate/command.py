"""`qmodd rate`: key length of a block from its counts, or the rate that a link can be expected to give."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qmodd.keys.estimation import KeyLength, Proof
from qmodd.rate import counts_file, plot
from qmodd.rate.optimise import RANGES, Proposal, optimise
from qmodd.rate.planner import Expectation, block_sizes, expected
from qmodd.rate.system import BadSystem, System, faults, load
from qmodd.report.svg import NoPlots

SWEEP_DB = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0)


class _Usage(Exception):
    """One line a fault, for people."""


def add_parser(subparsers: Any) -> None:
    p = subparsers.add_parser(
        "rate",
        help="key length of a block, expected rate of a link",
        description="Key length of a block from its counts, or the expected secret key rate over loss, dead time and "
        "acceptance rule included, with the choice of block size and, if wanted, of the source's settings.",
        epilog="example: qmodd rate --loss-db 10 20 --blocks --plot rate.svg",
    )
    what = p.add_mutually_exclusive_group()
    what.add_argument("--counts", metavar="FILE", help="JSON or TOML with the block's counts; - is standard input")
    what.add_argument("--loss-db", type=float, nargs="+", metavar="A", help="fibre loss, dB (default 0 to 50)")
    p.add_argument(
        "--system", type=Path, metavar="FILE", help="TOML of source, receiver, keys (default: reference pair)"
    )
    p.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one value over the file's: source.p_x=0.1"
    )
    p.add_argument("--n-z", type=int, metavar="N", help="Z detections at which a block closes")
    p.add_argument("--proof", choices=[str(v) for v in Proof], help="over the system's")
    p.add_argument("--blocks", action="store_true", help="block sizes beside their time to fill, length and rate")
    p.add_argument("--optimise", action="store_true", help="propose intensities, probabilities and basis split")
    p.add_argument(
        "--fixed", nargs="+", default=[], metavar="NAME", help=f"with --optimise: stays ({', '.join(RANGES)})"
    )
    p.add_argument("--plot", type=Path, metavar="F", help="write the rate over loss as SVG")
    p.add_argument("--json", action="store_true", help="one JSON object as the last line on stdout")
    p.set_defaults(run=command)


def command(args: argparse.Namespace) -> int:
    """Exit status: 0 done, 2 wrong usage or input."""
    try:
        out, text = _of_counts(args) if args.counts else _of_link(args)
    except (_Usage, counts_file.BadCounts, BadSystem, NoPlots) as e:
        sys.stderr.write(f"{e}\n")
        return 2
    (sys.stderr if args.json else sys.stdout).write(text)
    if args.json:
        sys.stdout.write(json.dumps(out) + "\n")
    return 0


def _of_counts(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    for name in ("system", "n_z", "proof", "blocks", "optimise", "fixed", "plot", "set"):
        if getattr(args, name):
            raise _Usage(f"--{name.replace('_', '-')} does not go with --counts: the file says everything")
    name = "standard input" if args.counts == "-" else args.counts
    text = sys.stdin.read() if args.counts == "-" else counts_file.read(Path(args.counts))
    length = counts_file.evaluate(text, name).length
    return _length(length), _length_text(length)


def _of_link(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    system = _system(args)
    losses = args.loss_db or SWEEP_DB
    for loss in losses:
        if not 0.0 <= loss <= 200.0:
            raise _Usage(f"--loss-db {loss:g}: 0 to 200 dB")
    if args.fixed and not args.optimise:
        raise _Usage("--fixed goes with --optimise")
    if unknown := sorted(set(args.fixed) - set(RANGES)):
        raise _Usage(f"--fixed {unknown[0]}: one of {', '.join(RANGES)}")
    points = [expected(system, loss) for loss in losses]
    out: dict[str, Any] = {"system": system.name, "points": [_point(p) for p in points]}
    if len(points) == 1:
        out |= out["points"][0]
    text = _table(points)
    if args.blocks:
        sizes = {loss: block_sizes(system, loss) for loss in losses}
        out["blocks"] = [_point(p) for choice in sizes.values() for p in choice]
        text += "".join(f"\nblock sizes at {loss:g} dB\n{_table(choice)}" for loss, choice in sizes.items())
    if args.optimise:
        found = [optimise(system, loss, fixed=args.fixed) for loss in losses]
        out["proposals"] = [_proposal(f) for f in found]
        text += "".join(map(_proposal_text, found))
    if args.plot:
        _write(args.plot, plot.drawn(system, points))
        out["plot"] = str(args.plot)
    return out, text


def _system(args: argparse.Namespace) -> System:
    system = load(args.system) if args.system else System()
    changes = [*args.set]
    if args.n_z is not None:
        changes.append(f"keys.n_z={args.n_z}")
    if args.proof is not None:
        changes.append(f'keys.proof="{args.proof}"')
    return _with(system, changes) if changes else system


def _with(system: System, changes: Sequence[str]) -> System:
    """Raises _Usage with the field, value and limit."""
    raw = system.model_dump(mode="json")
    for change in changes:
        key, found, value = change.partition("=")
        section, _, field = key.strip().partition(".")
        if not found or not isinstance(raw.get(section), dict) or field not in raw[section]:
            raise _Usage(f"--set {change}: KEY=VALUE, with a key such as source.p_x, receiver.dead_ns or keys.n_z")
        try:
            raw[section][field] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            raise _Usage(f"--set {change}: {value.strip()!r} is no TOML value") from None
    try:
        return System.model_validate(raw)
    except ValidationError as e:
        raise _Usage("\n".join(faults(e))) from None


def _length(k: KeyLength) -> dict[str, Any]:
    return {
        "length_bits": k.length_bits,
        "s_z0": k.s_z0,
        "s_z1": k.s_z1,
        "s_x1": k.s_x1,
        "v_x1": k.v_x1,
        "phi_z": k.phi_z,
        "leak_bits": k.leak_bits,
        "mu": list(k.mu),
        "why_zero": k.why_zero,
        "theorem": k.theorem,
    }


def _point(p: Expectation) -> dict[str, Any]:
    out = {
        "loss_db": p.loss_db,
        "n_z": p.n_z,
        "block_s": p.block_s if math.isfinite(p.block_s) else None,
        "skr_bps": p.skr_bps,
        "skr_bits_per_pulse": p.per_pulse,
        "sifted_bps": p.rates.total_z,
        "qber_z": p.rates.qber_z,
        "qber_x": p.rates.qber_x,
        "live_share": p.rates.live,
        "length_bits": 0,
    }
    return out | (_length(p.length) if p.length else {})


def _proposal(p: Proposal) -> dict[str, Any]:
    return {
        "loss_db": p.expectation.loss_db,
        "settings": p.settings,
        "expected": _point(p.expectation),
        "present_skr_bps": p.present.skr_bps,
    }


def _length_text(k: KeyLength) -> str:
    lines = [f"{k.length_bits} secret bits"]
    lines += [f"no key: {k.why_zero}"] if k.why_zero else []
    lines.append(f"s_z0 {k.s_z0:.6g}, s_z1 {k.s_z1:.6g}, s_x1 {k.s_x1:.6g}, v_x1 {k.v_x1:.6g}, phi_z {k.phi_z:.4%}")
    lines.append(f"leak {k.leak_bits} bits; least at mu {', '.join(f'{m:.6g}' for m in k.mu)}")
    return "\n".join([*lines, f"by {k.theorem}"]) + "\n"


def _table(points: Sequence[Expectation]) -> str:
    rows = [
        f"{'loss dB':>8} {'n_Z':>11} {'to fill s':>11} {'key bits':>11} {'bit/s':>11} {'QBER Z':>7} {'QBER X':>7}  "
    ]
    for p in points:
        why = p.length.why_zero if p.length and p.length.why_zero else ""
        rows.append(
            f"{p.loss_db:>8g} {p.n_z:>11d} {p.block_s:>11.4g} {p.length_bits:>11d} {p.skr_bps:>11.4g} "
            f"{p.rates.qber_z:>7.2%} {p.rates.qber_x:>7.2%}  {why}"
        )
    return "\n".join(row.rstrip() for row in rows) + "\n"


def _proposal_text(p: Proposal) -> str:
    settings = ", ".join(f"{name} {value:.4g}" for name, value in p.settings.items())
    gain = f"{p.expectation.skr_bps:.4g} bit/s instead of {p.present.skr_bps:.4g}"
    return f"\nproposed at {p.expectation.loss_db:g} dB: {settings}: {gain}\n"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as e:
        raise _Usage(f"--plot {path}: cannot be written: {e}") from None
