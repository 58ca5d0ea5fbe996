"""Secrets: tokens that are read from a file, an environment variable or the configuration."""

from __future__ import annotations

import os

from balancebeam.core.errors import describe_os_error
from balancebeam.core.settings import SecretSource

# In bytes. Tokens are much shorter (a JSON Web Token has 1 or 2 KiB), so a longer one is another
# file, given by mistake.
_MAX_LENGTH = 4096


def load_secret(secret: SecretSource) -> bytes:
    """
    Return the secret itself, without the whitespace around it in a file or a variable.

    Raises:
        ValueError: it cannot be read, or is not valid as a token; the text does not show it.
    """
    if secret.file is not None:
        try:
            with open(secret.file, "rb") as file:
                value = file.read(_MAX_LENGTH + 1).strip()
        except (OSError, ValueError) as error:
            raise ValueError(f"{secret.file}: cannot be read: {describe_os_error(error)}") from None
        where = secret.file
    elif secret.variable is not None:
        where = f"environment variable {secret.variable}"
        if secret.variable not in os.environ:
            raise ValueError(f"{where} is not set: expected a token in it")
        value = os.fsencode(os.environ[secret.variable]).strip()
    else:
        value, where = (secret.value or "").encode(), "token"
    if not value:
        raise ValueError(f"{where} is empty: expected a token")
    if len(value) > _MAX_LENGTH or not all(32 < byte < 127 for byte in value):
        # RFC 6750, 2.1: a bearer token is sent in a header, in ASCII without spaces.
        raise ValueError(
            f"{where}: invalid token: expected one word of at most {_MAX_LENGTH} ASCII characters"
        )
    return value
