"""What a KME says to an SAE, without HTTP: who may have which keys, and each of them once at each site.

No key can be taken by masters of both sites: half of the key ids belong to each direction (`qmodd.receiver.split`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qmodd.clock import Clock
from qmodd.kme.settings import KmeSettings, PairSettings
from qmodd.kme.wire import KeyIds, KeyRequest, Refused, Status
from qmodd.randomness import Randomness
from qmodd.receiver.arrivals import Arrivals
from qmodd.receiver.handing import Gone, HandOut, HeldKey, wipe_all
from qmodd.receiver.split import direction_of_master
from qmodd.receiver.table import KeyTable


@dataclass(frozen=True)
class Caller:
    """Who asks, by its TLS certificate: all names in it, and SHA-256 (hex) of the certificate."""

    names: frozenset[str]
    certificate_sha256: str

    def is_sae(self, pair: PairSettings) -> bool:
        pinned = pair.certificate_sha256
        return pair.sae_id in self.names and pinned in (None, self.certificate_sha256)


class Counter:
    """The keys of one pair. Its methods block for the disk."""

    def __init__(self, settings: KmeSettings, pair: PairSettings, clock: Clock, randomness: Randomness) -> None:
        """Raises StoreRefused."""
        self.pair = pair
        self._settings = settings
        self._clock = clock
        self.table = KeyTable(pair.store, Path(pair.store_key) if pair.store_key else None, randomness)
        self._hand_out = HandOut(self.table, clock)
        self._ours = direction_of_master(pair.sae_id, pair.peer_sae_id)
        self._theirs = direction_of_master(pair.peer_sae_id, pair.sae_id)

    def status(self) -> Status:
        """For the SAE of this site as master."""
        s = self._settings
        return Status(
            source_KME_ID=s.kme_id,
            target_KME_ID=s.peer_kme_id,
            master_SAE_ID=self.pair.sae_id,
            slave_SAE_ID=self.pair.peer_sae_id,
            key_size=s.key_size,
            stored_key_count=self._hand_out.available(bits=s.key_size, direction=self._ours),
            max_key_count=s.max_key_count,
            max_key_per_request=s.max_keys_per_request,
            max_key_size=s.key_size,
            min_key_size=s.key_size,
        )

    def enc_keys(self, request: KeyRequest) -> list[HeldKey]:
        """Keys for the SAE of this site as master, all that it asks for or none; the caller wipes them.

        Raises Refused.
        """
        self._check(request)
        with self.table.transaction():
            keys = self._hand_out.take(
                self.pair.sae_id, request.number, bits=self._settings.key_size, direction=self._ours
            )
            if len(keys) < request.number:
                wipe_all(keys)
                raise Refused(
                    503,
                    f"only {len(keys)} of {request.number} keys are there at the moment; ask again later",
                    [{"stored_key_count": len(keys)}],
                )
        return keys

    def dec_keys(self, ids: KeyIds) -> list[HeldKey]:
        """Keys that the SAE of the other site took as master, all or none; the caller wipes them. Raises Refused."""
        wanted = ids.uuids()
        self._check_number("key_IDs", len(wanted))
        try:
            return self._hand_out.take_ids(self.pair.sae_id, wanted, self._theirs)
        except Gone as e:
            details = [{"key_ID": str(i), "why": why} for i, why in e.why.items()]
            if e.later:
                raise Refused(503, "keys are not yet usable at this site; ask again later", details) from None
            raise Refused(400, "one or more keys specified are not found on KME", details) from None

    def sweep(self) -> None:
        """Lifetimes, also while no receiver runs; by a synchronised clock only."""
        if self._clock.utc_synchronised():
            Arrivals(self.table).sweep(self._clock.utc().timestamp())

    def close(self) -> None:
        self.table.close()

    def _check(self, request: KeyRequest) -> None:
        if request.extension_mandatory:
            unknown = [{"extension_mandatory_unsupported": name} for x in request.extension_mandatory for name in x]
            raise Refused(400, "not all extension_mandatory parameters are supported", unknown[:16])
        if request.additional_slave_SAE_IDs:
            raise Refused(400, "additional_slave_SAE_IDs are not supported: max_SAE_ID_count is 0")
        self._check_number("number", request.number)
        size = self._settings.key_size
        if request.size not in (None, size):
            raise Refused(400, f"size is {request.size} bit; this KME has keys of {size} bit only", [{"size": size}])

    def _check_number(self, what: str, n: int) -> None:
        most = self._settings.max_keys_per_request
        if n > most:
            raise Refused(400, f"{what}: {n} keys in one request; at most {most}", [{"max_key_per_request": most}])


class Desk:
    """All pairs of a KME."""

    def __init__(self, settings: KmeSettings, clock: Clock, randomness: Randomness) -> None:
        """Raises StoreRefused."""
        self.counters: list[Counter] = []
        try:
            for pair in settings.pair:
                self.counters.append(Counter(settings, pair, clock, randomness))
        except BaseException:
            self.close()
            raise

    def counter(self, caller: Caller, peer_sae_id: str) -> Counter:
        """Where this caller is served when it names that peer. Raises Refused."""
        served: Sequence[Counter] = [c for c in self.counters if caller.is_sae(c.pair)]
        if not served:
            raise Refused(401, "the client certificate is not that of an SAE of this KME")
        for counter in served:
            if counter.pair.peer_sae_id == peer_sae_id:
                return counter
        raise Refused(400, "no keys are shared with this SAE", [{"SAE_ID": peer_sae_id[:128]}])

    def sweep(self) -> None:
        for counter in self.counters:
            counter.sweep()

    def close(self) -> None:
        for counter in self.counters:
            counter.close()
