"""Commands that ask where keys are. Neither changes anything, and no answer has a bit of a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from qmodd.app.wiring import Wiring
from qmodd.keys.handover import Handover
from qmodd.requests import Arguments, Handler, Refusal


def key_handlers(wiring: Wiring) -> Mapping[str, Handler]:
    """By command name."""
    commands = KeyCommands(wiring)
    return {"keys": commands.keys, "provenance": commands.provenance}


class KeyCommands:
    """Questions to the key store, asked in a thread."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    async def keys(self, arguments: Arguments) -> dict[str, Any]:
        """Keys per state and recipient, what waits for whom, and whether the account is in order."""
        if arguments:
            raise Refusal("bad_arguments", f"unknown argument {sorted(arguments)[0]!r}; allowed: none")
        handover = self._handover()
        return await handover.blocking(self._keys, handover)

    def _keys(self, handover: Handover) -> dict[str, Any]:
        counts = handover.store.counts()
        default = self._wiring.config.keys.key_bits
        for r in self._wiring.config.recipient:
            known = counts["recipients"].setdefault(r.name, {})
            known.update(share=r.share, key_bits=r.key_bits or default, depth=r.depth)
        return {
            **counts,
            "batches_open": handover.delivery.outstanding(),
            "notices_open": handover.notices.open(),
            "waiting_for_far_site": handover.store.ledger.waiting_for_far(),
            "revoking": handover.revoking(),
            "account": handover.store.audit() or "in order",
        }

    async def provenance(self, arguments: Arguments) -> dict[str, Any]:
        """Where one key comes from: its block with counts and proof, batch, recipient, times, state at both sites."""
        if unknown := sorted(set(arguments) - {"key_id"}):
            raise Refusal("bad_arguments", f"unknown argument {unknown[0]!r}; allowed: key_id")
        value = arguments.get("key_id")
        try:
            key = UUID(value if isinstance(value, str) else "")
        except ValueError:
            raise Refusal("bad_arguments", f"key_id = {str(value)[:60]!r}: a UUID is needed") from None
        handover = self._handover()
        found = await handover.blocking(handover.store.provenance, key)
        if found is None:
            raise Refusal("not_found", f"no key {key} here: it was never made by this module, or it is purged")
        return found

    def _handover(self) -> Handover:
        handover = self._wiring.handover
        if handover is None:
            raise Refusal("wrong_state", "keys: this module hands no keys over")
        return handover
