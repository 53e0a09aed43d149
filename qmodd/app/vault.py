"""The module's own secrets as core opens them at its start; after a zeroise, stand-ins that nobody else knows.

A destruction that was interrupted is completed here, before anything else is opened. A module without its secrets still
starts, so that it can say what has happened; a latch keeps it dark, and stand-ins keep it from making a key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from qmodd.config import Config
from qmodd.crypto.suites import SigningKey
from qmodd.identity import Signer
from qmodd.keys.erasure import FILE, IDENTITY, KEK, NEXT_PRE_SHARED, PRE_SHARED, RING, Erasure, leftovers
from qmodd.keys.pool import MINIMUM_BYTES, Pool, forget_position
from qmodd.keys.rekey import NEXT_FILE
from qmodd.keys.store import KEK_BYTES, Database, load_kek
from qmodd.randomness import Randomness

RING_FILE = "pool.ring"


def erasure_of(config: Config) -> Erasure:
    """Every file of this module that holds a secret in the clear, the one that opens most first."""
    state_dir = config.module.state_dir
    return Erasure(
        state_dir / FILE,
        {
            KEK: config.pair.key_encryption_key,
            PRE_SHARED: config.pair.pre_shared_key,
            NEXT_PRE_SHARED: state_dir / NEXT_FILE,
            RING: state_dir / RING_FILE,
            IDENTITY: config.uplink.identity,
        },
    )


@dataclass
class Vault:
    """`interrupted`: the destruction was begun in an earlier life and its files were destroyed now; the stores are to
    follow. `kept`: why, by name, for files that could not be destroyed. `missing`: secrets that a person has to bring.
    """

    config: Config
    randomness: Randomness
    erasure: Erasure = field(init=False)
    interrupted: bool = False
    kept: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.erasure = erasure_of(self.config)
        mark = self.erasure.mark
        if mark is None:
            return
        self.interrupted = not mark.done
        if self.interrupted:
            self.kept = self.erasure.destroy_files()
            self.erasure.finish(self.kept, done=False)
        else:
            # What a module without its secrets has made for itself.
            self.kept = self.erasure.destroy_files(RING)
        leftovers(self.erasure.files[RING])
        self.missing = self.erasure.missing()

    @property
    def zeroised(self) -> bool:
        return self.erasure.mark is not None

    def kek(self) -> bytearray:
        """Raises StoreRefused."""
        if KEK in self._missing():
            return bytearray(self.randomness.bytes(KEK_BYTES))
        return load_kek(self.config.pair.key_encryption_key)

    def signer(self) -> Signer:
        """Raises BadKeyFile."""
        if IDENTITY in self._missing():
            return Signer(self.config.module.serial, SigningKey.generate())
        return Signer.load(self.config.uplink.identity)

    def pool(self, database: Database) -> Pool:
        """Raises PoolRefused. Begun anew from the pre-shared file after a zeroise."""
        if self.zeroised:
            forget_position(database)
        start: Path | bytearray = self.config.pair.pre_shared_key
        if PRE_SHARED in self._missing():
            start = bytearray(self.randomness.bytes(MINIMUM_BYTES))
        return Pool(self.erasure.files[RING], start, database)

    def _missing(self) -> set[str]:
        return {name.split(" (")[0] for name in self.missing}
