"""Data formats of ETSI GS QKD 014 v1.1.1, as far as requests and status go; containers are built by the receiver."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError


class Refused(Exception):
    """An answer that is an error: HTTP status, message and details as the standard has them."""

    def __init__(self, status: int, message: str, details: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.details = details

    def body(self) -> dict[str, Any]:
        return {"message": str(self), **({"details": self.details} if self.details else {})}


class _Data(BaseModel):
    """Members that this version of the standard does not know are no fault."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class KeyRequest(_Data):
    """Key request data format; sizes in bits."""

    number: Annotated[int, Field(ge=1)] = 1
    size: Annotated[int, Field(ge=1)] | None = None
    additional_slave_SAE_IDs: list[str] = []
    extension_mandatory: list[dict[str, JsonValue]] = []
    extension_optional: list[dict[str, JsonValue]] = []


class KeyId(_Data):
    key_ID: str


class KeyIds(_Data):
    """Key IDs data format."""

    key_IDs: Annotated[list[KeyId], Field(min_length=1)]

    def uuids(self) -> list[UUID]:
        """Raises Refused."""
        out: list[UUID] = []
        for item in self.key_IDs:
            try:
                out.append(UUID(item.key_ID))
            except ValueError:
                raise Refused(400, "a key_ID is not a UUID", [{"key_ID": item.key_ID[:64]}]) from None
        if len(set(out)) != len(out):
            raise Refused(400, "a key_ID is there twice")
        return out


class Status(_Data):
    """Status data format; sizes in bits."""

    source_KME_ID: str
    target_KME_ID: str
    master_SAE_ID: str
    slave_SAE_ID: str
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_SAE_ID_count: int = 0


def parse_request(text: bytes) -> KeyRequest:
    """An empty body asks for the defaults. Raises Refused."""
    try:
        return KeyRequest.model_validate_json(text or b"{}")
    except ValidationError as e:
        raise _bad(e) from None


def parse_ids(text: bytes) -> KeyIds:
    """Raises Refused."""
    try:
        return KeyIds.model_validate_json(text)
    except ValidationError as e:
        raise _bad(e) from None


def parse_query(query: dict[str, str]) -> KeyRequest:
    """`number` and `size` of a GET. Raises Refused."""
    found: dict[str, int] = {}
    for name in ("number", "size"):
        if name in query:
            text = query[name]
            if not (text.isascii() and text.isdecimal() and len(text) < 10):
                raise Refused(400, f"{name} is not a whole number", [{name: text[:64]}])
            found[name] = int(text)
    try:
        return KeyRequest.model_validate(found)
    except ValidationError as e:
        raise _bad(e) from None


def _bad(e: ValidationError) -> Refused:
    faults = e.errors(include_input=False, include_url=False, include_context=False)
    details = [{".".join(map(str, f["loc"]))[:80] or "body": f["msg"]} for f in faults[:16]]
    return Refused(400, "bad request format", details)
