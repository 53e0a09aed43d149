"""The one place where keys become text: the key container of ETSI GS QKD 014."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from qmodd.receiver.handing import HeldKey, wipe_all


def container(keys: Sequence[HeldKey]) -> bytes:
    """`{"keys": [{"key_ID": UUID, "key": base64}]}`; wipes the keys."""
    try:
        return json.dumps(
            {"keys": [{"key_ID": str(k.key_id), "key": base64.b64encode(k.key).decode()} for k in keys]}
        ).encode()
    finally:
        wipe_all(keys)
