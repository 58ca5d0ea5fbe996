"""Parser of the settings of tracing: `[tracing]`."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from balancebeam.config import values as v
from balancebeam.config.reader import Table
from balancebeam.core.tracing_settings import TracingSettings

# At most 100,000 requests of 1 KiB each are 100 MB.
_MAX_QUEUE_SIZE = 100_000

# RFC 9110, 5.1 and 5.5, without the characters in names that TOML would require to be quoted.
_FIELD_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}")
_FIELD_VALUE = re.compile(r"[!-~](?:[ -~]{0,8190}[!-~])?")

_URL = re.compile(r"https?://[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9._\-]+|[0-9A-Fa-f:.]+")

# Fields of the request itself, which an export sets.
_RESERVED_FIELDS = ("connection", "content-length", "content-type", "host", "transfer-encoding")


def parse_tracing(table: Table | None) -> TracingSettings | None:
    """Parse `[tracing]`; without that table there are no spans."""
    if table is None:
        return None
    defaults = TracingSettings()
    settings = TracingSettings(
        endpoint=table.get("endpoint", v.parsed(parse_endpoint), defaults.endpoint),
        service_name=table.get("service_name", _parse_service_name, defaults.service_name),
        sample_ratio=table.get("sample_ratio", v.fraction, defaults.sample_ratio),
        trusted_parents_only=table.get(
            "trusted_parents_only", v.boolean, defaults.trusted_parents_only
        ),
        headers=table.get("headers", _parse_headers, defaults.headers),
        timeout=table.get("timeout", v.seconds, defaults.timeout),
        queue_size=table.get("queue_size", v.integer(1, _MAX_QUEUE_SIZE), defaults.queue_size),
    )
    table.reject_unknown_keys()
    return settings


def parse_endpoint(text: str) -> str:
    """Parse the URL of a collector."""
    error = ValueError(
        f"invalid endpoint {v.display(text)}: expected a URL such as "
        f"{TracingSettings().endpoint}, without user name, query and fragment"
    )
    if _URL.fullmatch(text) is None:
        raise error
    try:
        url = urlsplit(text)
        valid = url.port != 0 and _HOST.fullmatch(url.hostname or "") is not None
    except ValueError:
        raise error from None
    if not valid or "@" in url.netloc or "?" in text or "#" in text:
        raise error
    return text


def _parse_service_name(value: Any) -> str:
    name = v.string(value)
    if not name.strip() or not name.isprintable() or len(name) > 255:
        raise ValueError(
            f"invalid service name {v.display(name)}: expected 1 to 255 printable characters"
        )
    return name


def _parse_headers(value: Any) -> tuple[tuple[str, str], ...]:
    """
    Parse a table of header fields.

    Raises:
        ValueError: a field is invalid; the text has no value, which may be a secret.
    """
    if not isinstance(value, dict):
        raise ValueError('invalid headers: expected a table such as {Authorization = "Bearer abc"}')
    names = [name.lower() for name in value]
    for name, content in value.items():
        if _FIELD_NAME.fullmatch(name) is None or name.lower() in _RESERVED_FIELDS:
            raise ValueError(
                f"invalid field name {v.display(name)}: expected letters, digits, '-' and '_', "
                f"and none of {', '.join(_RESERVED_FIELDS)}"
            )
        if names.count(name.lower()) > 1:
            raise ValueError(f"duplicate field {v.display(name)}: expected each field once")
        if not isinstance(content, str) or _FIELD_VALUE.fullmatch(content) is None:
            raise ValueError(
                f"invalid value of {v.display(name)}: expected a string of ASCII characters "
                "without white space around it"
            )
    return tuple(value.items())
