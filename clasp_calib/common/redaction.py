"""Secrets stay out of messages, journals and logs: API keys, passwords in addresses, tokens of the Hub."""

import base64
import json
import os
import re
from collections.abc import Collection, Iterator
from urllib.parse import quote

HIDDEN = "[hidden]"
SHORTEST = 4
"""Our choice: a shorter "secret" is a stand-in such as ``x``, and hiding it would leave no text readable."""
_KNOWN = re.compile(
    r"(?<=://)(?:[^/\s@:]*:(?!\d*/)[^\s\"'<>]*|[^/\s@]*)@"
    r"|(?<=Bearer )[\w.~+/=-]{8,}|(?<=Basic )[\w+/=-]{8,}|\bhf_[A-Za-z0-9]{16,}"
)
"""What is secret by its looks: credentials of an address or a header, a token of the Hub.

A password that nobody encoded may have ``/`` and ``@`` in it; what follows a colon is one unless it is a port.
"""


def redacted(text: str, secrets: Collection[str] = ()) -> str:
    """A text without secrets, as themselves, percent-encoded, in JSON or in base64, and without what looks like one."""
    forms = {form for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)}
    if forms:
        longest_first = sorted(forms, key=len, reverse=True)
        text = re.sub("|".join(map(re.escape, longest_first)), HIDDEN, text, flags=re.IGNORECASE)
    return _KNOWN.sub(HIDDEN, text)


def environment_secrets() -> list[str]:
    """The keys and tokens that the environment gives us."""
    return [os.environ.get(name, "") for name in ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")]


def _forms(secret: str) -> Iterator[str]:
    yield from (secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1])
    raw = secret.encode("utf-8", "surrogatepass")
    for before in range(3):
        # Base64 spells three bytes in four characters, so what stands before shifts it; those at the ends are shared.
        spelled = base64.b64encode(bytes(before) + raw)[-(-8 * before // 6) : 8 * (before + len(raw)) // 6].decode()
        yield from (spelled, spelled.replace("+", "-").replace("/", "_"))
