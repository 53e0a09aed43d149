"""Who is at a site: modules, recipients, people and programs, and the broker's access rules that follow from it.

The rules are Mosquitto's. Its user names are the certificates' common names; what is not allowed is denied. Roles are
the broker's first answer; core gives the second one from the signature on each request, and either is enough to refuse.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from qmodd.messages import ROOT, Name, Role, Serial
from qmodd.requests import ROLES
from qmodd.uplink.topics import PUBLIC

RecipientName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{1,31}$")]
# What a module says to one receiver only, below its root; `+` is the receiver's name.
DIRECTED = ("reply/+", "keys/+", "keys/+/usable", "keys/+/revoke")
REQUESTS = ("command/+", "set/#")
ACKNOWLEDGEMENTS = "keys/+/ack"
MAY_ASK: frozenset[Role] = frozenset({"operator", "maintainer", "security"})
# The commands by which nothing changes, which core answers to a viewer, too.
VIEWERS = tuple(f"command/{command}" for command, roles in sorted(ROLES.items()) if "viewer" in roles)

_HEAD = """\
# Who may do what at this broker. Made by `qmodd pki` from the list of a site; do not edit, edit the list.
# The user name is the common name of the client's certificate. What is not allowed here is denied.
# No rule can forbid to retain a message: core refuses a retained request, whoever sent it.

# Every module: its own root, and there only what a module says. Requests to itself it may read, not write.
"""


class SiteError(Exception):
    """One line a fault, with file and field."""


class Site(BaseModel):
    """The list of a site. A recipient or bridge names the modules that it has to do with; empty: all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Names and addresses under which clients reach the broker.
    broker: Annotated[list[str], Field(min_length=1)] = ["localhost", "127.0.0.1"]
    modules: list[Serial] = []
    recipients: dict[RecipientName, list[Serial]] = {}
    clients: dict[Name, Role] = {}
    # Brokers of sites that connect to this one, a central one.
    bridges: dict[Name, list[Serial]] = {}

    @model_validator(mode="after")
    def _names(self) -> Self:
        """One name, one identity: the broker knows nothing else of who is who."""
        every = [*self.modules, *self.recipients, *self.clients, *self.bridges]
        if twice := sorted({n for n in every if every.count(n) > 1}):
            raise ValueError(f"{twice[0]!r} is there twice; a name is one module, recipient, client or bridge")
        for name, serials in (*self.recipients.items(), *self.bridges.items()):
            if strangers := sorted(set(serials) - set(self.modules)):
                raise ValueError(f"{name}: {strangers[0]!r} is none of the modules")
        return self


# What `qmodd pki` makes when nothing else is said: the demo's pair, each role, and a second person for what needs two.
LAB = Site(
    modules=["QM-A-0001", "QM-B-0001"],
    recipients={"kms-a": ["QM-A-0001"], "kms-b": ["QM-B-0001"]},
    clients={
        "viewer": "viewer",
        "telegraf": "viewer",
        "operator": "operator",
        "maintainer": "maintainer",
        "security": "security",
        "security-2": "security",
    },
)


def load_site(path: Path) -> Site:
    """From TOML. Raises SiteError."""
    try:
        return Site.model_validate(tomllib.loads(path.read_text()))
    except OSError as e:
        raise SiteError(f"{path}: cannot be read: {e.strerror}") from None
    except tomllib.TOMLDecodeError as e:
        raise SiteError(f"{path}: not TOML: {e}") from None
    except ValidationError as e:
        raise SiteError("\n".join(_say(path, item["loc"], item["msg"]) for item in e.errors())) from None


def _say(path: Path, loc: tuple[int | str, ...], message: str) -> str:
    return f"{path}: {'.'.join(map(str, loc)) or 'file'}: {message.removeprefix('Value error, ')}"


def access_rules(site: Site) -> str:
    """The text of Mosquitto's `acl_file`."""
    parts = (_module_rules(), _recipient_rules(site), _client_rules(site), _bridge_rules(site))
    return _HEAD + "".join(f"{line}\n" for part in parts for line in part)


def _module_rules() -> Iterator[str]:
    for topic in (*PUBLIC, *DIRECTED):
        yield f"pattern write {ROOT}/%u/{topic}"
    for topic in (*REQUESTS, ACKNOWLEDGEMENTS):
        yield f"pattern read {ROOT}/%u/{topic}"


def _recipient_rules(site: Site) -> Iterator[str]:
    if site.recipients:
        yield "\n# Recipients of keys: what is sealed for them and said of it, and their acknowledgements."
    for name, serials in site.recipients.items():
        yield from _user(name)
        for serial in serials or ["+"]:
            root = f"{ROOT}/{serial}"
            for topic in (f"keys/{name}", f"keys/{name}/usable", f"keys/{name}/revoke", "alive"):
                yield f"topic read {root}/{topic}"
            yield f"topic write {root}/keys/{name}/ack"


def _client_rules(site: Site) -> Iterator[str]:
    if site.clients:
        yield "\n# People and programs of the operations centre. Sealed keys and answers to others they may not read."
    for name, role in site.clients.items():
        yield from _user(name, role)
        for topic in (*PUBLIC, f"reply/{name}"):
            yield f"topic read {ROOT}/+/{topic}"
        for topic in REQUESTS if role in MAY_ASK else VIEWERS:
            yield f"topic write {ROOT}/+/{topic}"


def _bridge_rules(site: Site) -> Iterator[str]:
    if site.bridges:
        yield "\n# Brokers of sites: they bring what their modules say and fetch what is asked of them."
    for name, serials in site.bridges.items():
        yield from _user(name)
        for serial in serials or ["+"]:
            for topic in (*PUBLIC, "reply/+"):
                yield f"topic write {ROOT}/{serial}/{topic}"
            for topic in REQUESTS:
                yield f"topic read {ROOT}/{serial}/{topic}"


def _user(name: str, role: str = "") -> Iterator[str]:
    """Without the `deny`, the rules for modules would let a client of this name speak as a module of this name."""
    yield f"\n# {role}\nuser {name}" if role else f"\nuser {name}"
    yield f"topic deny {ROOT}/{name}/#"
