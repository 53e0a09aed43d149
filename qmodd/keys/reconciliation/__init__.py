"""Error correction: syndromes of quasi-cyclic LDPC codes, one way, with counted help where a frame fails."""

from qmodd.keys.reconciliation.blocks import (
    LAST_ROUND,
    Corrector,
    Help,
    Mode,
    Plan,
    disclose,
    disclosed_bits,
    syndromes,
    total_disclosed,
)
from qmodd.keys.reconciliation.codes import FRAME_BITS, Code
from qmodd.keys.reconciliation.decoder import DecodeResult, decode, syndrome, warm_up
from qmodd.keys.reconciliation.ladder import LADDER, select_code
from qmodd.keys.reconciliation.policy import ExpectedQber, ModePolicy, Setting

__all__ = [
    "FRAME_BITS",
    "LADDER",
    "LAST_ROUND",
    "Code",
    "Corrector",
    "DecodeResult",
    "ExpectedQber",
    "Help",
    "Mode",
    "ModePolicy",
    "Plan",
    "Setting",
    "decode",
    "disclose",
    "disclosed_bits",
    "select_code",
    "syndrome",
    "syndromes",
    "total_disclosed",
    "warm_up",
]
