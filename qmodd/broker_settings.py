"""How a broker is reached: address, credentials, and TLS 1.3 on both sides with the files that say who is who."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LinkDown(Exception):
    """There is no connection to the broker (any more); the message says why, `code` is MQTT's reason code, if any."""

    def __init__(self, why: str, code: int | None = None) -> None:
        super().__init__(why)
        self.code = code


class BrokerSettings(BaseModel):
    """`url` is mqtt://HOST:PORT or mqtts://HOST:PORT; credentials are optional.

    With mqtts, `ca` (PEM) says whom to believe (without it: the system's store), and `certificate` with its `key` who
    this client is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(pattern=r"^mqtts?://[^/@]+$")] = "mqtt://127.0.0.1:1883"
    username: str | None = None
    password: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (fault := tls_fault(self.url, self.ca, self.certificate, self.key)) is not None:
            raise ValueError(fault)
        return self

    def relative_to(self, base: Path) -> BrokerSettings:
        """The same with its files taken from the directory `base` where they are relative."""
        files = {n: base / p for n in ("ca", "certificate", "key") if (p := getattr(self, n)) is not None}
        return self.model_copy(update=files)

    def endpoint(self) -> tuple[str, int]:
        """Host and port. Raises ValueError on a port that is none."""
        parts = urlsplit(self.url)
        default = 8883 if parts.scheme == "mqtts" else 1883
        return parts.hostname or "127.0.0.1", parts.port or default

    def tls(self) -> ssl.SSLContext | None:
        """TLS 1.3 with the files as they are now, so that renewed ones count from the next connection on.

        None for mqtt://. Raises LinkDown naming the file that cannot be used.
        """
        if not self.url.startswith("mqtts:"):
            return None
        try:
            context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except OSError as e:
            raise LinkDown(f"{self.ca}: cannot be used for TLS: {_ssl_words(e)}") from None
        context.sslsocket_class = _Socket
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.certificate is not None:
            try:
                # An encrypted key would ask for its password on a terminal.
                context.load_cert_chain(self.certificate, self.key, password=lambda: b"")
            except OSError as e:
                pair = f"{self.certificate} with {self.key}"
                raise LinkDown(f"{pair}: cannot be used for TLS: {_ssl_words(e)}") from None
        return context


class _Socket(ssl.SSLSocket):
    """Closes itself when the other side is not to be believed; paho leaves such a socket to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            self.close()
            raise


def tls_fault(url: str, ca: Path | None, certificate: Path | None, key: Path | None) -> str | None:
    """Why these do not go together; None: they do."""
    if (certificate is None) != (key is None):
        return "certificate and key go together: " + ("key" if key is None else "certificate") + " is missing"
    if url.startswith("mqtt:") and (ca or certificate):
        return f"{url} is without TLS, so ca, certificate and key would not be used; write mqtts://"
    return None


def _ssl_words(e: OSError) -> str:
    if isinstance(e, ssl.SSLError):
        return e.reason or "not PEM, or key and certificate do not fit together"
    return e.strerror or str(e)
