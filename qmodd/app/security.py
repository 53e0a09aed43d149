"""The security side of core, put together: approvals, revocation, purge, re-key, zeroise, and the tamper contact."""

from __future__ import annotations

from collections.abc import Callable

from qmodd.app.operator import Operator
from qmodd.app.rekeying import Rekeying
from qmodd.app.security_commands import Keys, actions
from qmodd.app.security_desk import SecurityDesk
from qmodd.app.vault import Vault
from qmodd.app.wiring import Wiring
from qmodd.app.zeroising import Revoke, Zeroising
from qmodd.keys.conversation import Blocking
from qmodd.keys.journal import Journal
from qmodd.randomness import Randomness


def secure(
    wiring: Wiring,
    operator: Operator,
    vault: Vault,
    kek: bytearray,
    journal: Journal,
    revoke: Revoke,
    stores: Callable[[], None],
    blocking: Blocking,
    randomness: Randomness,
) -> SecurityDesk:
    """After the engine is made. `kek` is the buffer that the key store holds; `revoke` gives keys up at both sites, and
    `stores` destroys what key store and outbox hold."""
    store = journal.store
    record = wiring.events.record
    rekeying = Rekeying(wiring, journal, blocking, revoke, record)
    zeroising = Zeroising(wiring, operator, vault, kek, store, journal.pool, blocking, revoke, stores)
    wiring.security_keys = Keys(store, revoke, blocking, wiring.clock, record)
    wiring.security = SecurityDesk(wiring, randomness, zeroising, rekeying)
    wiring.security.actions = actions(wiring.security_keys, rekeying, zeroising)
    return wiring.security
