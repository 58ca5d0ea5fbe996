"""Tokens in files, environment variables and the configuration."""

from __future__ import annotations

import os
from unittest import mock

from balancebeam.config.secret_source import load_secret
from balancebeam.core.settings import SecretSource
from tests.helpers.config import ConfigFileTestCase


class SecretTests(ConfigFileTestCase):
    """Loading a secret."""

    def test_whitespace_is_stripped(self) -> None:
        """A file or a variable may end in a newline, which is not part of the token."""
        path = self.write(" s3cret\n", "token")
        self.assertEqual(load_secret(SecretSource(file=path)), b"s3cret")
        with mock.patch.dict(os.environ, {"BB_TOKEN": "s3cret\n"}):
            self.assertEqual(load_secret(SecretSource(variable="BB_TOKEN")), b"s3cret")
        self.assertEqual(load_secret(SecretSource("s3cret")), b"s3cret")

    def test_length(self) -> None:
        """A token has at most 4096 bytes."""
        path = self.write("a" * 4096, "token")
        self.assertEqual(load_secret(SecretSource(file=path)), b"a" * 4096)
        self.write("a" * 4097, "token")
        error = self.assertRaises(ValueError, load_secret, SecretSource(file=path))
        self.assertIn("at most 4096", str(error))

    def test_tokens_of_a_file(self) -> None:
        """A configuration names the variable or the file of a token, and does not show it."""
        with mock.patch.dict(os.environ, {"BB_TOKEN": "s3cret"}):
            settings = self.parse("[admin]\nbind='0.0.0.0:1'\ntoken={env='BB_TOKEN'}\n")
        assert settings.admin is not None
        self.assertEqual(settings.admin.token, SecretSource(variable="BB_TOKEN"))
        self.assertNotIn("s3cret", repr(settings))
        path = self.write("s3cret\n", "token")
        settings = self.parse(f"[admin]\nbind='0.0.0.0:1'\ntoken_file='{path}'\n")
        assert settings.admin is not None
        self.assertEqual(settings.admin.token, SecretSource(file=path))

    def test_mistakes(self) -> None:
        """Each mistake is reported with its line and its key, and without the token."""
        empty, binary = self.write(" \n", "empty"), self.write("\x00\x01", "binary")
        missing = os.path.join(self.folder, "missing")
        self.patch(os, "environ", {**os.environ, "BB_EMPTY": "", "BB_ODD": "\udcff"})
        for text, parts in (
            (f"token_file='{missing}'", ["admin.token_file", missing, "no such"]),
            (f"token_file='{empty}'", ["admin.token_file", empty, "is empty"]),
            (f"token_file='{binary}'", ["admin.token_file", binary, "one word"]),
            (f"token_file='{self.folder}'", ["admin.token_file", "directory"]),
            ('token_file="a\\u0000"', ["admin.token_file", "the path of a file"]),
            ("token={env='BB_MISSING'}", ["admin.token", "variable BB_MISSING is not set"]),
            ("token={env='BB_EMPTY'}", ["admin.token", "BB_EMPTY is empty"]),
            ("token={env='BB_ODD'}", ["admin.token", "BB_ODD", "one word"]),
            ("token='two words'", ["admin.token", "one word"]),
        ):
            with self.subTest(text):
                (problem,) = self.option_problems(f"[admin]\n{text}\n")
                self.assertEqual(problem.partition(":")[0], "2", problem)
                for part in parts:
                    self.assertIn(part, problem)
                for secret in ("two words", "udcff", "\x01"):
                    self.assertNotIn(secret, problem)
