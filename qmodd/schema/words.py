"""What a person has to know beside the schemas to write a client."""

from __future__ import annotations

from typing import Any

from qmodd.messages import MAX_REQUEST_BYTES
from qmodd.requests import MAX_WINDOW

ABOUT = f"""\
MQTT 5, JSON in UTF-8 (key batches: CBOR). `module` is the serial number of a module's controller. Times are UTC, ISO
8601.

Reading: subscribe. What is retained is the present truth; `alive` says whether the module is there and carries its
`epoch`, which is new with every start.

Asking: a request is `Request`, its `body` the JSON text of a `RequestBody` for this topic and this epoch, signed as it
stands with the client's keys. `qmodctl sign MODULE COMMAND KEY=VALUE...` prints one (a setting: `set/PATH value=V`),
to be published within its time (at most {MAX_WINDOW.total_seconds():g} s) and once, with QoS 1, never retained, at most
{MAX_REQUEST_BYTES} bytes, on the topic that it names. Set MQTT 5's Response Topic to
`qmodd/v1/<module>/reply/<client>` or leave it out, and Correlation Data to what you like: it comes back with every
answer. Subscribe to that topic first. `Progress` with the request's id may come before the one `Reply` with it.

Everything is refused without effect that is retained, expired, a duplicate, malformed, unsigned, of another epoch, not
allowed to the client's role, out of range or in a wrong state; the reply says why in `error`."""

ANSWERS = "`qmodd/v1/<module>/reply/<client>` of the client in the request's certificate, and nowhere else"

# MQTT 5 properties, which AsyncAPI calls headers.
HEADERS: dict[str, Any] = {
    "type": "object",
    "description": "MQTT 5 properties",
    "properties": {
        "responseTopic": {"type": "string", "description": "of a request: where its answer goes; may be absent"},
        "correlationData": {"type": "string", "description": "of a request, the same in its answers; may be absent"},
    },
}
