"""Signed requests in core: verify, authorise, dispatch, answer. Uplink's word counts for nothing here.

Order of checks: what MQTT said (retained, duplicate, expired), size, form, certificate, signature over the raw bytes of
the body, then module, topic, client, epoch, time window, response topic, role, replay. A refusal has no effect, is
audited, and is answered where the sender is known, which is from a good signature on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from pydantic import JsonValue, ValidationError

from drivers.errors import DriverError, OutOfRange
from qmodd.clock import Clock
from qmodd.messages import (
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    ROOT,
    Client,
    Limit,
    Progress,
    Reply,
    ReplyError,
    Request,
    RequestBody,
    Role,
    Untrusted,
)

Arguments = Mapping[str, JsonValue]
Handler = Callable[[Arguments], Awaitable[dict[str, Any]]]
Audit = Callable[[str, dict[str, str | int | float | bool | None]], None]
AnswerSender = Callable[[str, bytes], None]

MAX_WINDOW = timedelta(minutes=10)
MAX_SKEW = timedelta(seconds=60)
REPLAY_IDS = 65_536

_ACT: frozenset[Role] = frozenset({"operator", "maintainer"})
ROLES: Mapping[str, frozenset[Role]] = {
    **dict.fromkeys(("start", "stop", "lock", "unlock", "calibrate", "selftest", "acknowledge", "undo"), _ACT),
    **dict.fromkeys(("shelve", "maintenance"), _ACT),
    "safe": frozenset({"operator", "maintainer", "security"}),
    **dict.fromkeys(("snapshot", "record", "monitors"), frozenset({"viewer", "operator", "maintainer", "security"})),
    **dict.fromkeys(("rollback", "clear-latch", "lease", "release", "sweep"), frozenset({"maintainer"})),
    **dict.fromkeys(("fru", "locate"), frozenset({"viewer", "operator", "maintainer", "security"})),
    **dict.fromkeys(("revoke", "purge", "rekey", "zeroise", "approve", "reject"), frozenset({"security"})),
    **dict.fromkeys(("approvals", "keys", "provenance"), frozenset({"viewer", "operator", "maintainer", "security"})),
}


class Refusal(Exception):
    """A request that is not carried out. Handlers raise it, too, e.g. with the code `wrong_state`."""

    def __init__(self, code: str, message: str, limit: Limit | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.limit = limit


class Inbound(Protocol):
    """A request as it came through the door."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def retained(self) -> bool: ...
    @property
    def duplicate(self) -> bool: ...
    @property
    def expired(self) -> bool: ...
    @property
    def response_topic(self) -> str | None: ...


class Authenticator(Protocol):
    """The site authority as the module trusts it."""

    def authenticate(self, request: Request, now: datetime | None) -> Client:
        """Raises Untrusted."""
        ...


@dataclass
class Replays:
    """Ids of requests that were accepted in this epoch. One whose time is over is forgotten, by a good clock only."""

    ids: OrderedDict[str, datetime] = field(default_factory=OrderedDict)

    def accept(self, request_id: str, expires_at: datetime, now: datetime | None) -> None:
        """Raises Refusal when it is known, or when no more can be remembered."""
        if request_id in self.ids:
            raise Refusal("duplicate", "a request with this id was handled before")
        if len(self.ids) >= REPLAY_IDS and now is not None:
            for old in [i for i, t in self.ids.items() if t + MAX_SKEW < now]:
                del self.ids[old]
        if len(self.ids) >= REPLAY_IDS:
            raise Refusal("busy", f"{REPLAY_IDS} requests are remembered against replay; wait or restart core")
        self.ids[request_id] = expires_at


_progress: ContextVar[Callable[[float, str], None] | None] = ContextVar("qmodd_progress", default=None)


def report_progress(fraction: float, text: str = "") -> None:
    """For handlers of long work: tell the client how far it is (0 to 1). Outside a request it does nothing."""
    if (tell := _progress.get()) is not None:
        tell(fraction, text)


_client: ContextVar[Client | None] = ContextVar("qmodd_client", default=None)


def requesting() -> Client | None:
    """For handlers: who asked; None outside a request."""
    return _client.get()


@dataclass
class Requests:
    """`handle` goes to the door as `on_request`.

    `handlers` by command name (`calibrate`); a `set/<path>` topic is looked up as `set/<path>`. A handler gets the
    arguments and returns what *is* afterwards. It raises Refusal, a DriverError (OutOfRange is answered as
    `out_of_range`) or ValueError for bad arguments; anything else is a bug and reaches the supervisor.
    """

    module: str
    epoch: str
    clock: Clock
    authenticator: Authenticator
    handlers: Mapping[str, Handler]
    audit: Audit
    roles: Mapping[str, frozenset[Role]] = field(default_factory=lambda: ROLES)
    replays: Replays = field(default_factory=Replays)
    # Why a path is no setting.
    unknown_setting: Callable[[str], str] = field(default=lambda path: f"no setting {path[:64]!r}")

    async def handle(self, inbound: Inbound, answer: AnswerSender) -> None:
        body: RequestBody | None = None
        client: Client | None = None
        try:
            self._check_transport(inbound)
            request = _parse_request(inbound.payload)
            client = self._authenticate(request)
            body = _parse_body(request.body)
            command = self._check_body(body, client, inbound)
            handler = self._authorise(command, client)
            self.replays.accept(body.id, body.expires_at, self._now())
        except Refusal as refusal:
            self._refuse(refusal, inbound.topic, body, client, answer)
            return
        await self._run(handler, command, body, client, answer)

    def _now(self) -> datetime | None:
        return self.clock.utc() if self.clock.utc_synchronised() else None

    def _check_transport(self, inbound: Inbound) -> None:
        if inbound.retained:
            raise Refusal("retained", "a request is never retained; clear it at the broker")
        if inbound.duplicate:
            raise Refusal("duplicate", "delivered a second time")
        if inbound.expired:
            raise Refusal("expired", "its message expiry has passed")
        if len(inbound.payload) > MAX_REQUEST_BYTES:
            raise Refusal("too_large", f"{len(inbound.payload)} bytes; at most {MAX_REQUEST_BYTES}")

    def _authenticate(self, request: Request) -> Client:
        try:
            return self.authenticator.authenticate(request, self._now())
        except Untrusted as e:
            raise Refusal(e.code, str(e)) from None

    def _check_body(self, body: RequestBody, client: Client, inbound: Inbound) -> str:
        root = f"{ROOT}/{self.module}/"
        if body.module != self.module:
            raise Refusal("wrong_module", f"is for {body.module}; this is {self.module}")
        if body.topic != inbound.topic or not inbound.topic.startswith(root):
            raise Refusal("wrong_topic", f"is for {body.topic}; it came on {inbound.topic}")
        if body.client != client.name:
            raise Refusal("wrong_client", f"names {body.client}; its certificate is {client.name}'s")
        if body.epoch != self.epoch:
            raise Refusal("wrong_epoch", f"is for epoch {body.epoch}; the module's is {self.epoch}: read `alive` again")
        self._check_times(body)
        if inbound.response_topic not in (None, f"{root}reply/{client.name}"):
            raise Refusal("wrong_response_topic", f"answers go to {root}reply/{client.name} only")
        return inbound.topic.removeprefix(root).removeprefix("command/")

    def _check_times(self, body: RequestBody) -> None:
        if not timedelta(0) < body.expires_at - body.issued_at <= MAX_WINDOW:
            raise Refusal("bad_window", f"expires {body.expires_at - body.issued_at} after issue; at most {MAX_WINDOW}")
        now = self._now()
        if now is None:
            return  # epoch and id stand against replay without a clock
        if now > body.expires_at:
            raise Refusal("expired", f"expired at {body.expires_at.isoformat()}; now {now.isoformat()}")
        if body.issued_at > now + MAX_SKEW:
            raise Refusal("not_yet", f"issued at {body.issued_at.isoformat()}, which is later than {now.isoformat()}")

    def _authorise(self, command: str, client: Client) -> Handler:
        handler = self.handlers.get(command)
        if handler is None and command.startswith("set/"):
            raise Refusal("unknown_setting", self.unknown_setting(command.removeprefix("set/")))
        if handler is None:
            names = (name for name in self.handlers if not name.startswith("set/"))
            raise Refusal("unknown_command", f"{command!r} is none of {', '.join(sorted(names))}")
        allowed = self.roles.get(command, _ACT)
        if client.role not in allowed:
            needed = " or ".join(sorted(allowed))
            raise Refusal("not_allowed", f"{command} needs {needed}; {client.name} is {client.role}")
        return handler

    async def _run(
        self, handler: Handler, command: str, body: RequestBody, client: Client, answer: AnswerSender
    ) -> None:
        def tell(fraction: float, text: str) -> None:
            progress = Progress(id=body.id, progress=min(1.0, max(0.0, fraction)), text=text[:200])
            answer(client.name, progress.payload())

        self.audit("request.accepted", {"command": command, "client": client.name, "role": client.role, "id": body.id})
        token, who = _progress.set(tell), _client.set(client)
        try:
            reply = Reply(id=body.id, ok=True, result=await handler(body.arguments))
        except (Refusal, DriverError, ValueError) as e:
            reply = _failed(body.id, e)
            self._audit_failure(command, client, reply)
        finally:
            _progress.reset(token)
            _client.reset(who)
        payload = reply.payload()
        if len(payload) > MAX_REPLY_BYTES:
            payload = _failed(body.id, Refusal("too_large", "done, but the answer is too large to send")).payload()
        answer(client.name, payload)

    def _audit_failure(self, command: str, client: Client, reply: Reply) -> None:
        error = reply.error or ReplyError(code="unknown", message="")
        fields = {"command": command, "client": client.name, "code": error.code, "why": error.message[:500]}
        self.audit("request.failed", {**fields})

    def _refuse(
        self, refusal: Refusal, topic: str, body: RequestBody | None, client: Client | None, answer: AnswerSender
    ) -> None:
        self.audit(
            "request.refused",
            {
                "topic": topic,
                "client": client.name if client else None,
                "code": refusal.code,
                "why": str(refusal)[:500],
            },
        )
        if body is not None and client is not None:
            answer(client.name, _failed(body.id, refusal).payload())


def _code(e: Exception) -> str:
    match e:
        case Refusal():
            return e.code
        case OutOfRange():
            return "out_of_range"
        case DriverError():
            return "device"
        case _:
            return "bad_arguments"


def _failed(request_id: str, e: Exception) -> Reply:
    code = _code(e)
    message = str(e)
    if isinstance(e, ValidationError):  # never repeats the input
        message = "; ".join(f"{'.'.join(str(p) for p in x['loc'])}: {x['msg']}" for x in e.errors(include_url=False))
    limit = e.limit if isinstance(e, Refusal) else None
    return Reply(id=request_id, ok=False, error=ReplyError(code=code, message=message[:2000], limit=limit))


def _parse_request(payload: bytes) -> Request:
    try:
        return Request.model_validate_json(payload)
    except ValidationError as e:
        raise Refusal("malformed", _where(e)) from None


def _parse_body(raw: str) -> RequestBody:
    try:
        return RequestBody.model_validate_json(raw)
    except ValidationError as e:
        raise Refusal("malformed", f"body: {_where(e)}") from None


def _where(e: ValidationError) -> str:
    first = e.errors(include_input=False, include_url=False, include_context=False)[0]
    return f"{'.'.join(str(p) for p in first['loc'])[:80] or 'payload'}: {first['msg'][:200]}"
