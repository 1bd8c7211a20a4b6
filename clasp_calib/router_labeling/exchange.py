"""Questions to a server over HTTP: each bounded in time and size, and whatever is quoted of it without secrets."""

import asyncio
import ipaddress
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import getproxies

import httpx2 as httpx

from clasp_calib.common.errors import InputError, LabelerError
from clasp_calib.common.redaction import HIDDEN, redacted

LARGEST = 4 << 20
"""Bytes of a reply, unpacked. Our choice: a label takes kilobytes, the longest lists of models less than one MiB."""
LONGEST_WAIT = 60.0
"""Seconds. Our choice: a server that asks to be left alone for longer is asked again after these."""
QUOTED = 200
"""Characters of a reply that a message quotes."""


class ExchangeError(Exception):
    """No reply, or none that can be used; the message is the reason."""


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    quoted: Callable[[str], str] = field(repr=False)

    @property
    def shown(self) -> str:
        """Its beginning, without secrets."""
        return self.quoted(self.body.decode("utf-8", "replace"))

    @property
    def wait(self) -> float:
        """Seconds that the server asks to be left alone (``Retry-After``: seconds, or a date), up to `LONGEST_WAIT`."""
        said = self.headers.get("Retry-After", "").strip()
        try:
            until = parsedate_to_datetime(said).timestamp() - time.time() if not said.isdecimal() else float(said)
        except (ValueError, OverflowError):
            return 0.0
        return min(max(until, 0.0), LONGEST_WAIT)

    @property
    def value(self) -> Any:
        """What it says in JSON.

        Raises:
            ExchangeError: it is not JSON, or nested too deeply.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else "not JSON"
            raise ExchangeError(f"a reply that is {reason}: {self.shown}") from None


class Server:
    """A server and how it is talked to.

    Args:
        root: address that paths are appended to; a user and password in it are sent, and never shown.
        key: bearer token; never shown.

    Raises:
        InputError: the address is none, or a key that cannot be sent in a header.
    """

    def __init__(self, root: str, key: str | None = None):
        try:
            self._root = httpx.URL(root)
            usable = self._root.scheme in ("http", "https") and self._root.host and (self._root.port or 1) < 2**16
        except (httpx.InvalidURL, ValueError, TypeError):
            usable = ""
        if not usable:
            # Where the password of such an address ends, nobody knows.
            *secret, rest = str(root).rsplit("@", 1)
            raise InputError(
                f"{HIDDEN * len(secret) + rest!r} is no address of a server; give one such as "
                "http://127.0.0.1:8000/v1 with --base-url (base_url)"
            )
        self.shown = str(self._root.copy_with(userinfo=b"", query=None, fragment=None))
        """The address without what may be secret in it."""
        if key and (illegal := re.search(r"[^\x21-\x7e]", key)):
            raise InputError(
                f"the API key (--api-key, OPENAI_API_KEY or api_key) has the character U+{ord(illegal[0]):04X} at "
                f"place {illegal.start() + 1}, and expected are printable ASCII characters without spaces or line "
                "breaks; set it again"
            )
        if key and self._root.userinfo:
            raise InputError("there are an API key and a password in the address of the server; give one of them")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        named = [url for url in (self._root, *map(_url, getproxies().values())) if url and url.userinfo]
        pairs = [f"{url.username}:{url.password}" for url in named]
        self._secrets = {
            *pairs,
            *(url.password or url.username for url in named),
            *self._root.params.values(),
            key or "",
        }

    def hidden(self, text: str) -> str:
        """A text without the key, passwords, and what looks like a secret."""
        return redacted(text, self._secrets)

    def quoted(self, text: str) -> str:
        """The beginning of a text, without secrets."""
        text = self.hidden(text)
        return text if len(text) <= QUOTED else f"{text[:QUOTED]}..."

    def client(self, connections: int) -> httpx.AsyncClient:
        """What `ask` needs; follows no redirects, which would lead the key elsewhere.

        Raises:
            LabelerError: proxies or certificates that the environment names cannot be used.
        """
        try:
            return httpx.AsyncClient(
                headers=self._headers,
                verify=httpx.create_ssl_context(),
                timeout=None,
                limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
                # A proxy does not reach this machine.
                trust_env=not is_loopback(self._root.host),
            )
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            raise LabelerError(
                f"{self.shown} cannot be reached with the proxies or certificates that the environment names "
                f"({self.quoted(str(error))}); mend or unset HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE, or, "
                "for a SOCKS proxy, pip install 'httpx2[socks]'"
            ) from None

    async def ask(self, client: httpx.AsyncClient, path: str, seconds: float, body: Any = None) -> Reply:
        """One request, and its whole reply.

        Args:
            client: of `client`.
            path: below the root.
            seconds: for everything: connecting, sending, headers and body.
            body: JSON to post; None gets.

        Raises:
            ExchangeError: no whole reply in time, a reply that is too large, or the connection failed.
        """
        url = self._root.copy_with(path=f"{self._root.path.rstrip('/')}/{path}")
        content = bytearray()
        try:
            async with (
                asyncio.timeout(seconds),
                client.stream("GET" if body is None else "POST", url, json=body) as reply,
            ):
                async for part in reply.aiter_bytes():
                    content += part
                    if len(content) > LARGEST:
                        raise ExchangeError(f"a reply of more than {LARGEST >> 20} MiB")
        except TimeoutError:
            raise ExchangeError(f"no whole reply within {seconds:g} s") from None
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError) as error:
            raise ExchangeError(self.quoted(f"{type(error).__name__} {error}".strip())) from None
        return Reply(reply.status_code, reply.headers, bytes(content), self.quoted)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, by its name or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _url(address: str) -> httpx.URL | None:
    try:
        return httpx.URL(address)
    except (httpx.InvalidURL, ValueError):
        return None
