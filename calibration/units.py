"""Units by the suffix of a value's name: the one place where `p_pi_w` is said to be watts."""

from __future__ import annotations

# Longest first where one suffix ends like another.
_SUFFIXES = (
    ("_k_per_a_s", "K/(A s)"),
    ("_per_root_s", "1/sqrt(s)"),
    ("_v_per_decade", "V/decade"),
    ("_rad_per_k", "rad/K"),
    ("_a_per_w", "A/W"),
    ("_a_per_k", "A/K"),
    ("_k_per_a", "K/A"),
    ("_k_per_w", "K/W"),
    ("_v_per_k", "V/K"),
    ("_w_per_a", "W/A"),
    ("_per_w", "1/W"),
    ("_per_v", "1/V"),
    ("_per_a", "1/A"),
    ("_per_s", "1/s"),
    ("_ohm", "ohm"),
    ("_rad", "rad"),
    ("_dbm", "dBm"),
    ("_db", "dB"),
    ("_hz", "Hz"),
    ("_ps", "ps"),
    ("_s", "s"),
    ("_w", "W"),
    ("_v", "V"),
    ("_a", "A"),
    ("_c", "C"),
    ("_k", "K"),
)


def unit_of(name: str) -> str:
    """Unit that a value's name carries; "1" for a plain number."""
    stem = name
    for end in ("_low", "_high"):
        stem = stem.removesuffix(end)
    return next((unit for suffix, unit in _SUFFIXES if stem.endswith(suffix)), "1")
