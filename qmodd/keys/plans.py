"""Whether a PLAN of the far end can be one: what its numbers would make the receiver wait for, keep, or divide by."""

from __future__ import annotations

from qmodd.keys.estimation import FixedLength, Proof
from qmodd.keys.fields import Pairs
from qmodd.keys.pilot import LEAST_EVERY
from qmodd.keys.protocol import Plan

_PS = 1e-12
INTENSITIES = 2
# s from PLAN to the public string, and of the string itself. A shorter one would be looked for at millions of places.
MOST_LEAD_S, LEAST_SYNC_S, MOST_SYNC_S = 60.0, 0.01, 60.0
LEAST_BIN_PS, MOST_PERIOD_PS = 1.0, 1e9
MOST_SLOT = 1 << 62
MOST_PHOTONS = 10.0


def why_impossible(plan: Plan) -> str | None:
    """The first thing that cannot be, or None."""
    if not (plan.period_ps >= 3 * plan.bin_ps > 0 and plan.slot_now < plan.sync_slot < plan.key_slot):
        return "the plan's times contradict each other"
    if plan.bin_ps < LEAST_BIN_PS or plan.period_ps > MOST_PERIOD_PS or plan.key_slot > MOST_SLOT:
        return "the plan's slots are no slots of any source"
    lead_s = (plan.sync_slot - plan.slot_now) * plan.period_ps * _PS
    sync_s = (plan.key_slot - plan.sync_slot) * plan.period_ps * _PS
    if lead_s > MOST_LEAD_S or not LEAST_SYNC_S <= sync_s <= MOST_SYNC_S:
        return f"a public string of {sync_s:.3g} s in {lead_s:.3g} s cannot be waited for"
    if plan.pilot_every and not LEAST_EVERY <= plan.pilot_every <= MOST_SLOT:
        return f"a pilot every {plan.pilot_every} slots leaves none for keys"
    if len(plan.p_mu) != INTENSITIES or not all(0.0 < p < 1.0 for p in (*plan.p_mu, plan.p_x)):
        return "the plan's probabilities are no probabilities"
    if abs(sum(plan.p_mu) - 1.0) > 1e-6:
        return "the plan's probabilities of the intensities do not add up to one"
    if plan.agreed and agreement(plan) is None:
        return "the plan's thresholds of a fixed length are none"
    return why_no_intensities(plan.mu)


def agreement(plan: Plan) -> FixedLength | None:
    """What the sides agreed on before the blocks, or None."""
    try:
        s_z0, s_z1, phi_z, leak = plan.agreed
        return FixedLength(Proof(plan.proof), s_z0, s_z1, phi_z, int(leak), plan.eps_sec, plan.eps_cor)
    except (ValueError, OverflowError):
        return None


def why_no_intensities(mu: Pairs) -> str | None:
    """Of PLAN or INTENSITIES: two intervals of mean photon numbers."""
    if len(mu) != INTENSITIES or not all(0.0 <= low <= high <= MOST_PHOTONS for low, high in mu):
        return "the intensities are no intervals of mean photon numbers"
    return None
