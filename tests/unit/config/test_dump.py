"""Settings written as a file, which loads to equal settings."""

from __future__ import annotations

import contextlib
import io
import os
from unittest import mock

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balancebeam.config.cross_checks import validate_settings
from balancebeam.config.dump import MASK, dump
from balancebeam.config.toml_file import finalize
from balancebeam.core.settings import (
    AdminSettings,
    FrontendSettings,
    PoolSettings,
    SecretSource,
    Settings,
)
from tests.helpers.config import FULL_FILE, TWO_FRONTENDS, ConfigFileTestCase
from tests.helpers.config_strategies import all_settings, toml


class DumpRoundTripTests(ConfigFileTestCase):
    """Loading dumped settings results in equal settings."""

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(all_settings())
    def test_all_settings(self, given_settings: Settings) -> None:
        """Settings, the dumped file and its settings are equal, and the settings are valid."""
        text = dump(given_settings)
        loaded = self.load(text)
        self.assertEqual(loaded, given_settings, text)
        self.assertEqual(dump(loaded), text)
        self.assertEqual(validate_settings(given_settings), [])

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(all_settings(), st.text("abcdefghijklmnopqrstuvwxyz\"\\'#", min_size=24, max_size=24))
    def test_a_masked_secret_is_not_shown(self, given_settings: Settings, token: str) -> None:
        """A masked dump has `MASK` in place of secrets, and is otherwise the same."""
        admin = evolve(given_settings.admin or AdminSettings(), token=SecretSource(token))
        given_settings = evolve(given_settings, admin=admin)
        text = dump(given_settings, mask=True)
        self.assertNotIn(token, text)
        self.assertNotIn(toml(token), text)
        self.assertNotIn(token, repr(given_settings))
        masked = evolve(given_settings, admin=evolve(admin, token=SecretSource(MASK)))
        if masked.tracing is not None:
            fields = tuple((name, MASK) for name, _ in masked.tracing.headers)
            masked = evolve(masked, tracing=evolve(masked.tracing, headers=fields))
        self.assertEqual(self.load(text), masked)
        self.assertEqual(self.load(dump(given_settings)), given_settings)

    def test_defaults(self) -> None:
        """Default settings are equal after dumping and loading, with and without [admin]."""
        for defaults in (
            finalize(Settings((), ())),
            Settings((FrontendSettings(),), (PoolSettings(),), AdminSettings()),
        ):
            self.assertEqual(self.load(dump(defaults)), defaults)


class CheckOptionTests(ConfigFileTestCase):
    """`--check` prints the effective configuration."""

    def test_output_results_in_the_same_settings(self) -> None:
        """The output is a file with the settings of file and options, and without secrets."""
        with mock.patch.dict(os.environ, {"BB_TOKEN": "s3cret"}):
            for text, arguments in (
                (
                    FULL_FILE.replace("token_file =", "token = {env = 'BB_TOKEN'} #"),
                    ("--idle-timeout=7", "--admin=localhost:1"),
                ),
                (
                    TWO_FRONTENDS,
                    ("--max-requests-per-minute=7", "--registration", "-t", "0.25"),
                ),
                (TWO_FRONTENDS, ("-m", "tcp", "-t", "3", "--tunnel-timeout=4")),
                (
                    "[frontend]\nbind_on='a:1'\n[[frontend.backend]]\nforward_to='b:1'\n",
                    ("-u", "unix:/x,weight=3,backup,proxy=v2", "-b", "haproxy:unix:/y"),
                ),
                (
                    "[frontend]\nbind_on='a:1'\n[[frontend.backend]]\nforward_to='b:1'\n",
                    ("-mhttp",),
                ),
                ("", ("--demo", "3")),
                ("handover_timeout = 600\n", ("-u", "b:1")),
                ("", ("-u", "http://unix:80")),
            ):
                settings, printed = self.check(text, *arguments)
                self.assertEqual(self.load(printed), settings)
                self.assertEqual(self.parse(printed), settings)
                self.assertEqual(self.check(printed), (settings, printed))
                self.assertNotIn("s3cret", printed)

    def test_mistakes(self) -> None:
        """With mistakes, nothing is printed on stdout."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            self.option_problems("demo = 'x'\n", "--check")
        self.assertEqual(output.getvalue(), "")
