"""Secrets, read from where they are."""

from __future__ import annotations

import os

from balancebeam.core.settings import SecretSource

# Longer ones are files given by mistake.
_MAX_LENGTH = 4096


def load_secret(secret: SecretSource) -> bytes:
    """
    The secret itself, without white space around it. Raises `ValueError`, which
    does not show it.
    """
    if secret.file is not None:
        try:
            with open(secret.file, "rb") as file:
                value = file.read(_MAX_LENGTH + 1).strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ValueError(f"{secret.file}: cannot be read: {why}") from None
        where = secret.file
    elif secret.variable is not None:
        if secret.variable not in os.environ:
            raise ValueError(f"the environment has no variable {secret.variable}")
        value = os.fsencode(os.environ[secret.variable]).strip()
        where = f"the variable {secret.variable}"
    else:
        value, where = (secret.value or "").encode(), "the token"
    if not value:
        raise ValueError(f"{where} is empty")
    if len(value) > _MAX_LENGTH or not all(32 < octet < 127 for octet in value):
        # RFC 6750, 2.1: a token is sent in a field, in ASCII without blanks.
        raise ValueError(f"{where} is not one word in ASCII, as a token has to be")
    return value
