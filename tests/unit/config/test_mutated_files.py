"""Configuration files with mutations: robustness of the parser and its messages."""

from __future__ import annotations

import sys
from datetime import date, datetime, time, timezone
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balancebeam.config.cross_checks import check_admin, validate_settings
from balancebeam.config.dump import dump
from balancebeam.config.toml_file import finalize, load_file
from tests.helpers.config import ConfigFileTestCase, option_problems
from tests.helpers.config_strategies import TEXTS, toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A valid file with most keys.
VALID = """\
state = "/var/lib/balancebeam/state"
drain_timeout = 30

[[frontend]]
name = "web"
bind = ["0.0.0.0:1100", "[::]:1100"]
mode = "http"
pool = "app"
trusted_proxies = ["10.0.0.0/8"]
max_body = "1GiB"
registration = true
registration_from = ["10.1.0.0/16"]
access_log = "-"
access_log_format = "json"
allow = ["0.0.0.0/0"]

[[frontend.route]]
host = "*.example.org"
path = "/v1"
pool = "api"
[[frontend.route.limit]]
algorithm = "token-bucket"
requests = 10
burst = 5

[frontend.limit]
requests = 600
per = 60
key = ["client", "header:X-Api-Key"]

[frontend.timeouts]
header = 10
idle = 60

[frontend.forwarding]
forwarded = true
request_id = "make"

[[frontend]]
name = "db"
mode = "tcp"
bind = "unix:/run/db"
pool = "db"
log_connections = true

[[pool]]
name = "app"
algorithm = "power-of-two"
upstreams = [
    "127.0.0.1:8080,weight=2",
    {address = "127.0.0.1:8081", weight = 5, max_in_flight = 200, backup = false},
]
timeouts = {connect = 5, upstream = 60}

[pool.health]
path = "/health"
interval = 10
status = "200-299"

[pool.passive]
failures = 1
error_ratio = 0.5

[pool.retries]
attempts = 3
budget = 0.2

[[pool]]
name = "api"
upstreams = ["unix:/run/api"]
queue.limit = 5

[[pool]]
name = "db"
upstreams = ["127.0.0.1:5432"]
health = {interval = 3}

[admin]
bind = "127.0.0.1:1101"
token = {env = "BALANCEBEAM_TOKEN"}
"""

LINES = VALID.splitlines()

_UNEXPECTED_VALUES = st.recursive(
    st.one_of(
        st.sampled_from((0, -1, True, False, 10**12, 10**400, 0.5, -0.0, 1e300, "1GiB", "all")),
        st.sampled_from((date(2020, 1, 2), time(3, 4), datetime(2020, 1, 2, tzinfo=timezone.utc))),
        st.integers(),
        st.floats(),
        TEXTS,
        st.sampled_from(("", "app", "api", "db", "web", "http", "tcp", "client", "127.0.0.1:1101")),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=5,
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in parsed data, except the root."""
    paths = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list) else pairs:
        paths += paths_of(item, (*path, key))
    return paths


PATHS = paths_of(tomllib.loads(VALID))

# The keys of all tables.
KEYS = sorted({str(path[-1]) for path in PATHS if isinstance(path[-1], str)})


class MutatedFileTests(ConfigFileTestCase):
    """Any file results in settings or in messages, never in another exception."""

    def check_load(self, text: str) -> None:
        """
        Load a file and check the result.

        Each message is one line and begins with the file. Without mistakes, the settings are
        equal after dumping and loading, and the command line accepts the file.
        """
        loaded, problems = load_file(self.write(text))
        for problem in problems:
            self.assertTrue(problem.startswith(f"{self.path}:"), problem)
            self.assertEqual(problem.splitlines(), [problem])
            self.assertNotIn("Traceback", problem)
        complete = finalize(loaded)
        # They may return anything, but not raise, even for settings with mistakes.
        validate_settings(complete)
        if complete.admin is not None:
            check_admin(complete.admin)
        if not problems:
            reloaded, new_problems = load_file(self.write(dump(complete), "dumped.toml"))
            self.assertEqual(new_problems, [], text)
            self.assertEqual(finalize(reloaded), complete, text)
        startup_problems = option_problems("-c", self.path)
        self.assertTrue(set(problems) <= set(startup_problems))
        for problem in startup_problems:
            self.assertEqual(problem.splitlines(), [problem])

    def test_unchanged(self) -> None:
        """The file without mutations has no mistakes."""
        _, problems = load_file(self.write(VALID))
        self.assertEqual(problems, [])
        self.check_load(VALID)

    def test_missing_and_repeated_lines(self) -> None:
        """Each line left out or repeated, and each truncated file, has messages without repeats."""
        for number in range(len(LINES)):
            for lines in (
                LINES[:number] + LINES[number + 1 :],
                LINES[: number + 1] + LINES[number:],
                LINES[:number],
            ):
                self.check_load("\n".join(lines))
                _, problems = load_file(self.path)
                self.assertEqual(len(set(problems)), len(problems), problems)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test_changed_lines(self, data: st.DataObject) -> None:
        """Lines replaced, split, joined, or with other text or values in them."""
        lines = list(LINES)
        for _ in range(data.draw(st.integers(1, 4))):
            number = data.draw(st.integers(0, len(lines) - 1))
            other = data.draw(st.sampled_from(LINES))
            position = data.draw(st.integers(0, len(lines[number])))
            start, end = lines[number][:position], lines[number][position:]
            key = lines[number].partition("=")[0]
            lines[number : number + 1] = data.draw(
                st.sampled_from(
                    (
                        [],
                        [lines[number]] * 2,
                        [other],
                        [lines[number], other],
                        [start],
                        [start + end[1:]],
                        [start + data.draw(TEXTS) + end],
                        [key + "=" + other.partition("=")[2]],
                        [key + "=" + toml(data.draw(_UNEXPECTED_VALUES))],
                    )
                )
            ) or ["# removed"]
        self.check_load("\n".join(lines) + "\n")

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.tuples(st.sampled_from(PATHS), _UNEXPECTED_VALUES), min_size=1, max_size=4),
        st.booleans(),
    )
    def test_values_of_other_types(
        self, changes: list[tuple[tuple[Any, ...], Any]], inline: bool
    ) -> None:
        """Values replaced by values of any type."""
        content = tomllib.loads(VALID)
        for path, value in changes:
            parent: Any = content
            try:
                for part in path[:-1]:
                    parent = parent[part]
                parent[path[-1]]
            except (KeyError, IndexError, TypeError):
                continue  # An earlier change has removed the path.
            if isinstance(parent, (dict, list)):
                parent[path[-1]] = value
        self.check_load("".join(f"{toml(key)} = {toml(item)}\n" for key, item in content.items()))

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.dictionaries(
            st.sampled_from(("frontend", "pool", "admin", "state", "demo")),
            st.recursive(
                _UNEXPECTED_VALUES
                | st.dictionaries(st.sampled_from(KEYS), _UNEXPECTED_VALUES, max_size=4),
                lambda inner: st.lists(
                    st.dictionaries(st.sampled_from(KEYS), inner, max_size=4), max_size=3
                ),
                max_leaves=6,
            ),
        )
    )
    def test_arbitrary_content(self, content: dict[str, Any]) -> None:
        """Known keys in any table, with values of any type."""
        self.check_load("".join(f"{key} = {toml(item)}\n" for key, item in content.items()))
