"""What the tests of the installed package run inside, and its key server's configuration."""

from __future__ import annotations

KEYS = 40
# Keys in the store of a module that has none of its own yet; runs as core's user, while core is stopped.
FILL = f"""
import json, os
from pathlib import Path
from uuid import uuid4
from qmodd.clock import SystemClock
from qmodd.keys.records import BlockRecord
from qmodd.keys.store import Database, KeyStore, load_kek
from qmodd.randomness import SystemRandomness

now = SystemClock().utc().timestamp()
record = BlockRecord(
    uuid=str(uuid4()), role="alice", link="demo-link", run=1, block=0, round=0, proof="wiesemann2024", n_z=(700, 300),
    m_z=(7, 3), n_x=(70, 30), m_x=(1, 1), mu=((0.5, 0.6), (0.1, 0.2)), leak_bits=100, length_bits=3000,
    replenish_bits=1280, key_bits=256, keys={KEYS}, dropped_bits=3, frames=1, frames_helped=0, eps_sec=1e-9,
    eps_cor=1e-15, eps_auth=1e-26, seed_sha256="00" * 32, calibration="c", allocations=1, first_slot=5, end_slot=50,
    created=now, not_after=now + 86400.0)
database = Database(Path("/var/lib/qmodd/keys.db"))
store = KeyStore(database, load_kek(Path("/root-kek")), "demo-link", ["kms-a"], SystemRandomness())
assert store.add_block(record, bytearray(os.urandom(32 * {KEYS})))
database.close()
"""


KME = """
kme_id = "KME-A"
peer_kme_id = "KME-B"
listen = "127.0.0.1:8443"
certificate = "/var/lib/qmodd-kms/kme-a.pem"
key = "/var/lib/qmodd-kms/kme-a.key"
client_ca = "/var/lib/qmodd-kms/ca.pem"
key_size = 256

[[pair]]
sae_id = "SAE-A"
peer_sae_id = "SAE-B"
store = "/var/lib/qmodd-kms/kms-a"
store_key = "/var/lib/qmodd-kms/kms-a-store.key"
"""
ASK = """
import ssl
from urllib.request import urlopen

context = ssl.create_default_context(cafile="/var/lib/qmodd-kms/ca.pem")
context.load_cert_chain("/var/lib/qmodd-kms/SAE-A.pem", "/var/lib/qmodd-kms/SAE-A.key")
print(urlopen("https://127.0.0.1:8443/api/v1/keys/SAE-B/status", context=context).read().decode())
"""
