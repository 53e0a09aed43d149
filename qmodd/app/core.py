"""Core, composed: one object per process (two of them in simulated time). Start order is the order in `run`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from drivers.bus.libraries import Libraries
from drivers.bus.pool import BusPool
from qmodd import __version__
from qmodd.app.alarm_watch import AlarmWatch, boundless, disk_free
from qmodd.app.alice import AliceOperator
from qmodd.app.bob import BobOperator
from qmodd.app.commands import handlers
from qmodd.app.field_commands import Locate
from qmodd.app.host import Numbers, host_numbers
from qmodd.app.identify import Bay
from qmodd.app.kpi_desk import FILE as KPI_FILE
from qmodd.app.kpi_desk import KpiDesk
from qmodd.app.security import secure
from qmodd.app.setting_desk import SettingDesk
from qmodd.app.setting_effects import connect
from qmodd.app.telemetry import Telemetry
from qmodd.app.vault import Vault
from qmodd.app.wiring import Wiring, read_factory
from qmodd.clock import Clock
from qmodd.config import Config
from qmodd.door_core import DoorCore
from qmodd.events import EventLog
from qmodd.field.records import ModuleRecords
from qmodd.identity import Authority, RecipientPublic
from qmodd.keys.alice_engine import AliceEngine
from qmodd.keys.allocation import Pair
from qmodd.keys.bob_engine import BobEngine
from qmodd.keys.conversation import Blocking, Desk
from qmodd.keys.counts import BatchReport
from qmodd.keys.delivery import BatchFacts, KeyDelivery, Terms
from qmodd.keys.envelope import Provenance
from qmodd.keys.estimation import Proof
from qmodd.keys.handover import Handover
from qmodd.keys.journal import Journal
from qmodd.keys.kernels import Kernels, WorkerDied
from qmodd.keys.reconciliation import Setting
from qmodd.keys.records import BlockRecord
from qmodd.keys.settings import EngineSettings, LengthPolicy
from qmodd.keys.store import Database, KeyStore
from qmodd.lifecycle import Administrative, LifeCycle
from qmodd.local_door import LocalDoor
from qmodd.messages import Alive
from qmodd.module import Module
from qmodd.outbox import Outbox
from qmodd.randomness import Randomness
from qmodd.requests import ROLES, Requests
from qmodd.schema.published import publish as publish_schema


@dataclass(frozen=True)
class Injected:
    """What production and simulated time do differently."""

    libraries: Libraries
    clock: Clock
    randomness: Randomness
    kernels: Kernels
    # Makes the door of this core: on a Unix socket, or in memory.
    door: Callable[..., DoorCore]
    serve_door: Callable[[DoorCore], Awaitable[None]]
    threads: bool
    durable: bool
    heartbeat_s: float = 0.3
    # Where the door of the field engineer is; None: there is none.
    local_socket: Path | None = None


class Core:
    """Raises, on construction, whatever makes the configuration unusable; no bus has been touched by then."""

    def __init__(self, config: Config, injected: Injected) -> None:
        state_dir = config.module.state_dir
        state_dir.mkdir(parents=True, exist_ok=True)
        # First of all: a destruction of secrets that was interrupted is completed.
        self.vault = Vault(config, injected.randomness)
        self.settings = SettingDesk(config, injected.clock, Blocking(injected.threads))
        config = self.settings.in_force
        self.config, self.injected = config, injected
        clock, randomness = injected.clock, injected.randomness
        self.life = LifeCycle(state_dir / "administrative.json", clock)
        if not config.module.unlocked and self.life.administrative is Administrative.UNLOCKED:
            self.life.set_administrative(Administrative.LOCKED, "the configuration says module.unlocked = false")
        self.events = EventLog(state_dir / "events.jsonl" if injected.durable else None, clock, config.module.serial)
        self.outbox = Outbox(state_dir / "outbox.db")
        library = ModuleRecords(state_dir, durable=injected.durable)
        self.records = library.records
        buses = BusPool(injected.libraries, clock.monotonic)
        self.module = Module(config, buses)
        self.wiring = Wiring(
            config,
            clock,
            self.life,
            self.events,
            self.outbox,
            self.records,
            read_factory(config),
            self.module,
            injected.heartbeat_s,
        )
        self.wiring.settings = self.settings
        self.wiring.raw = library.raw
        self.wiring.bay = Bay(self.wiring, library)
        self.epoch = randomness.bytes(8).hex()
        self._open_store(state_dir, randomness)
        self._make_delivery(randomness)
        self._make_operator()
        self._make_door()
        self._make_engine()
        self._make_security()
        # The host is no part of a simulated world: two runs of a seed must not differ by it.
        durable = self.injected.durable
        free = disk_free if durable else boundless

        def host() -> Numbers:
            return host_numbers(clock, lambda: free(state_dir)) if durable else {}

        self.telemetry = Telemetry(self.wiring, self.operator, buses, self.store, host)
        connect(self.wiring, self.operator, self.telemetry)
        self.settings.effects.append(self._configured)
        self.operator.selftesting.free, self.operator.selftesting.randomness = free, self.injected.randomness
        self.alarm_watch = AlarmWatch(self.wiring, self.operator, self.store, free)
        self.kpis = KpiDesk(
            state_dir / KPI_FILE,
            clock,
            self.outbox,
            self.events,
            lambda group, numbers: self.door.telemetry(group, numbers),
            Blocking(injected.threads),
            locked=self.life.administrative is Administrative.LOCKED,
            durable=injected.durable,
        )

    def _open_store(self, state_dir: Path, randomness: Randomness) -> None:
        c = self.config
        self.database = Database(state_dir / "keys.db")
        pool, self.kek = self.vault.pool(self.database), self.vault.kek()
        recipients = [r.name for r in c.recipient]
        self.store = KeyStore(self.database, self.kek, c.pair.link_id, recipients, randomness, self.injected.clock)
        self.journal = Journal(self.store, pool)

    def _make_delivery(self, randomness: Randomness) -> None:
        c = self.config
        signer, recipients = self.vault.signer(), {r.name: RecipientPublic.load(r.public) for r in c.recipient}
        self.delivery = KeyDelivery(
            self.store,
            self.outbox,
            signer,
            recipients,
            c.pair.link_id,
            self.epoch,
            randomness,
            self._facts_of,
            self.events.record,
            terms={r.name: Terms(r.batch_keys, r.depth, r.labels) for r in c.recipient},
        )
        blocking, clock = Blocking(self.injected.threads), self.injected.clock
        self.handover = Handover.of(
            self.journal, self.delivery, c.module.serial, clock, randomness, blocking, self.events.record
        )
        self.handover.purge_after_s = c.keys.purge_after_s
        self.wiring.handover = self.handover

    def _facts_of(self, ids: Sequence[UUID]) -> BatchFacts:
        blocks = self.store.blocks_of(ids)
        provenance = tuple(
            Provenance(
                round=b.round,
                protocol=f"time-bin BB84, one decoy, {b.proof}",
                eps_sec=b.eps_sec + b.eps_auth,
                qber=b.qber_z,
                pa_seed_sha256=bytes.fromhex(b.seed_sha256),
                calibration_version=b.calibration,
                firmware_sha256=bytes.fromhex(b.firmware_sha256),
            )
            for b in blocks
        )
        begin = datetime.fromtimestamp(min(b.created for b in blocks), UTC)
        end = datetime.fromtimestamp(min(b.not_after for b in blocks), UTC)
        purge_by = datetime.fromtimestamp(end.timestamp() + self.handover.purge_after_s, UTC)
        return BatchFacts(begin, end, purge_by, provenance)

    def _make_security(self) -> None:
        parts = (self.wiring, self.operator, self.vault, self.kek, self.journal)
        blocking = Blocking(self.injected.threads)
        self.security = secure(*parts, self._revoke, self.handover.zeroise, blocking, self.injected.randomness)

    async def _revoke(self, ids: Sequence[UUID], why: str) -> int:
        """At both sites, down to the recipients; how many were not revoked before."""
        return len((await self.handover.revoke(ids, why)).revoked)

    def _make_operator(self) -> None:
        alice = self.config.module.role == "alice"
        self.operator: AliceOperator | BobOperator = AliceOperator(self.wiring) if alice else BobOperator(self.wiring)

    def _make_door(self) -> None:
        self.wiring.locate = Locate(self.wiring)
        c, clock = self.config, self.injected.clock
        requests = Requests(
            c.module.serial,
            self.epoch,
            clock,
            Authority.load(c.uplink.authority),
            {**handlers(self.wiring, self.operator), **self.settings.handlers()},
            self.events.record,
            {**ROLES, **self.settings.roles()},
            unknown_setting=self.settings.why_unknown,
        )
        self.door = self.injected.door(
            outbox=self.outbox,
            clock=clock,
            on_request=requests.handle,
            on_key_ack=self.handover.on_key_ack,
            alive=Alive(state="online", epoch=self.epoch, version=__version__, since=clock.utc()),
            module=c.module.serial,
            report=lambda name, why: self.events.record(name, {"why": why}),
        )
        self.wiring.door = self.door
        self.local = self._make_local(requests)

    def _make_local(self, requests: Requests) -> LocalDoor | None:
        if self.injected.local_socket is None:
            return None
        local = LocalDoor(
            self.injected.local_socket,
            self.outbox,
            self.injected.clock,
            requests.handle,
            self.door.alive,
            self.config.module.serial,
            lambda name, why: self.events.record(name, {"why": why}),
        )
        self.door.taps.append(local.telemetry)
        return local

    def _make_engine(self) -> None:
        c, k = self.config, self.config.keys
        settings = EngineSettings(
            serial=c.module.serial,
            link_id=c.pair.link_id,
            peer_serial=c.pair.peer_serial,
            proof=Proof(k.proof),
            eps_sec=k.eps_sec,
            eps_cor=k.eps_cor,
            n_z=k.n_z,
            reconciliation=Setting(k.reconciliation),
            length=LengthPolicy(k.length),
            fixed_margin=k.fixed_margin,
            key_bits=k.key_bits,
            pairs=tuple(Pair(r.name, r.share, r.key_bits or k.key_bits) for r in c.recipient),
            batch_s=k.batch_s,
            sync_s=k.sync_s,
            gate=(c.receiver.gate_open_ps, c.receiver.gate_period_ps),
            half_gate_ps=c.receiver.half_gate_ps,
            holdoff=c.receiver.hold_off_slots,
            lifetime_s=k.lifetime_s,
            store_limit=k.store_limit,
        )
        i = self.injected
        desk = Desk(
            settings,
            i.kernels,
            self.journal,
            i.clock,
            i.randomness,
            Blocking(i.threads),
            self.events.record,
            self._on_block,
        )
        channel = self.door.channel
        if isinstance(self.operator, AliceOperator):
            operator = self.operator
            self.engine: AliceEngine | BobEngine = AliceEngine(
                settings,
                channel,
                desk,
                operator.on_batch,
                self.module.source,
                operator.light,
                operator.plan_facts,
                operator.patterns.add,
            )
        else:
            self.engine = BobEngine(settings, channel, desk, self._bob_batch, self.module.tags)
        self.wiring.engine = self.engine
        self.engine.handover = self.handover
        self.engine.on_peer_module = self.wiring.bay.hear_peer
        self.wiring.bay.on_peer_replaced = self.operator.interrupt

    def _bob_batch(self, batch: BatchReport) -> None:
        assert isinstance(self.operator, BobOperator)
        period_s = self.config.pair.symbol_period_ps * 1e-12
        self.operator.on_batch(batch, (batch.end_slot - batch.first_slot) * period_s)

    def _configured(self, config: Config) -> None:
        self.config = config

    def _on_block(self, record: BlockRecord) -> None:
        self.telemetry.block(record)
        self.handover.poke()

    async def run(self) -> None:
        """Until cancelled; then outputs are safe, keys and events on disk."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.injected.kernels.close)
            if self.injected.durable:
                stack.callback(self.outbox.keep_synced())
            stack.callback(self.events.record, "core.stopped")
            self.events.record("core.started", {"version": __version__, "role": self.config.module.role})
            publish_schema(self.outbox)
            self.settings.open()
            await self.security.resume()
            async with asyncio.TaskGroup() as group:
                group.create_task(self.security.run(), name="security")
                group.create_task(self.alarm_watch.run(), name="alarms")
                group.create_task(self.kpis.run(), name="KPIs")
                group.create_task(self._serve_door(), name="door")
                group.create_task(self._start_kernels(), name="kernels")
                group.create_task(self.engine.run(), name="engine")
                group.create_task(self.handover.run(), name="delivery")
                group.create_task(self.telemetry.run(), name="telemetry")
                group.create_task(self.wiring.locate.run(), name="locate LED")
                if self.local is not None:
                    group.create_task(self.local.run(), name="local door")
                group.create_task(self.operator.run(), name="operator")

    async def _start_kernels(self) -> None:
        try:
            await self.injected.kernels.start()
        except WorkerDied as e:
            self.events.record("worker.died", {"why": str(e)})

    async def _serve_door(self) -> None:
        await self.injected.serve_door(self.door)

    def close(self) -> None:
        """Files and databases, after `run` has ended."""
        self.handover.close()
        self.events.close()
        self.outbox.close()
        self.database.close()
