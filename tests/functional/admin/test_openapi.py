"""The OpenAPI document of the admin API, held against routes and responses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin import events
from balancebeam.admin.api import ROUTES
from balancebeam.admin.http_server import MAX_BODY
from balancebeam.admin.openapi import openapi_document, openapi_json
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import (
    AdminSettings,
    AdminState,
    SecretSource,
    ServerSettings,
    ServerSource,
)
from tests.helpers.admin import HOST_HEADER, JSON_HEADER, MemoryAdmin, Response, parse_responses
from tests.helpers.memory import GET, OK
from tests.helpers.processes import ScriptedServer, free_port, respond_with, run_balancer

NEW = {"address": "10.9.9.9:80"}
SERVER = "/upstreams/app/10.0.0.1:80"
AUTH = b"Authorization: Bearer sesame\r\n"


def operations() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The path, method and description of every operation."""
    for path, item in openapi_document()["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method.upper(), operation


TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}

# The keywords that `violations` implements, and annotations.
KEYWORDS = {"type", "enum", "const", "anyOf", "$ref", "properties", "required", "items"}
KEYWORDS |= {"additionalProperties", "minimum", "maximum", "maxLength", "minProperties", "format"}
KEYWORDS |= {"default", "examples"}


def has_type(value: Any, kind: str) -> bool:
    """Whether `value` is of a type of JSON Schema."""
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def violations(value: Any, schema: Mapping[str, Any], where: str = "value") -> Iterator[str]:
    """Where `value` violates `schema`, in the subset of JSON Schema that is used here."""
    assert set(schema) <= KEYWORDS, schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from violations(value, openapi_document()["components"]["schemas"][name], where)
    if "anyOf" in schema and all(list(violations(value, option)) for option in schema["anyOf"]):
        yield f"{where} matches no schema of anyOf"
    if "const" in schema and value != schema["const"]:
        yield f"{where} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is not in {schema['enum']}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(has_type(value, kind) for kind in kinds):
        yield f"{where} is of another type"
    if schema.get("format") == "date-time" and isinstance(value, str):
        datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, int) and not (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
    ):
        yield f"{where} is out of range"
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from violations(item, schema["items"], f"{where}[{number}]")
    if isinstance(value, dict) and "properties" in schema:
        yield from _object_violations(value, schema, where)


def _object_violations(
    value: Mapping[str, Any], schema: Mapping[str, Any], where: str
) -> Iterator[str]:
    """Missing and unexpected properties of an object, and violations of the others."""
    for name in schema["required"]:
        if name not in value:
            yield f"{where} has no {name}"
    for name, item in value.items():
        if name in schema["properties"]:
            yield from violations(item, schema["properties"][name], f"{where}.{name}")
        else:
            yield f"{where} has unexpected {name}"


class OpenApiDocumentTests(SynchronousTestCase):
    """The document by itself."""

    def test_operations_are_the_routes(self) -> None:
        """The document describes exactly the routes of the API."""
        described = {(path, method) for path, method, _ in operations()}
        table = {(path, method) for path, methods in ROUTES.items() for method in methods}
        self.assertEqual(described, table)

    def test_parameters_are_in_the_path(self) -> None:
        """The parameters are the names in braces of the path, in order."""
        for path, item in openapi_document()["paths"].items():
            names = [parameter["name"] for parameter in item.get("parameters", [])]
            self.assertEqual(names, [part[1:-1] for part in path.split("/") if "{" in part])

    def test_request_bodies(self) -> None:
        """Exactly the operations that need a body describe one."""
        with_body = {(p, m) for p, m, operation in operations() if "requestBody" in operation}
        self.assertEqual(
            with_body,
            {
                ("/register", "POST"),
                ("/upstreams/{pool}", "POST"),
                ("/upstreams/{pool}/{address}", "PATCH"),
            },
        )

    def test_enumerations(self) -> None:
        """Admin states and sources of servers are all listed."""
        schemas = openapi_document()["components"]["schemas"]
        states = schemas["Change"]["properties"]["state"]["enum"]
        self.assertEqual(set(states), {state.value for state in AdminState})
        sources = schemas["Server"]["properties"]["source"]["enum"]
        self.assertEqual(set(sources), {source.value for source in ServerSource})

    def test_validator(self) -> None:
        """The validator of these tests finds each kind of violation."""
        server = {"$ref": "#/components/schemas/Server"}
        self.assertTrue(list(violations({}, server)))
        self.assertTrue(list(violations(True, {"type": "integer"})))
        self.assertTrue(list(violations(257, {"type": "integer", "minimum": 0, "maximum": 256})))
        self.assertTrue(list(violations([1], {"type": "array", "items": {"type": "string"}})))
        self.assertTrue(list(violations(None, {"anyOf": [{"type": "string"}]})))
        error = {"$ref": "#/components/schemas/Error"}
        self.assertTrue(list(violations({"status": "error", "data": "x", "y": 1}, error)))
        self.assertFalse(list(violations({"status": "error", "data": "x"}, error)))


class ResponseSchemaTests(SynchronousTestCase):
    """Every described status is produced, and every response matches its schema."""

    def setUp(self) -> None:
        self.admin = MemoryAdmin(admin=AdminSettings(token=SecretSource("sesame")), servers=2)
        self.addCleanup(self.admin.stop)
        self.seen: set[tuple[str, str, int]] = set()

    def request(
        self, method: str, path: str, body: Any = None, fields: bytes = JSON_HEADER
    ) -> Response:
        """Send an authorized request, and return the response."""
        return self.admin.request(method, path, body, HOST_HEADER + AUTH + fields)

    def check(self, pattern: str, method: str, response: Response) -> None:
        """Validate `response` against the document, and record its status as seen."""
        operation = openapi_document()["paths"][pattern][method.lower()]
        self.assertIn(str(response.status), operation["responses"], (method, pattern))
        (content,) = operation["responses"][str(response.status)]["content"].items()
        media_type, media = content
        self.assertEqual(response.fields[b"content-type"].decode().partition(";")[0], media_type)
        if media_type == "application/json":
            violated = list(violations(response.json, media["schema"]))
            self.assertEqual(violated, [], (method, pattern, response))
        self.seen.add((method, pattern, response.status))

    def register(self, path: str, pattern: str) -> None:
        """Register a server that passes its health check, and one that fails it."""
        for finish_check in (self.admin.pass_check, self.admin.fail_check):
            client = self.admin.start_request("POST", path, NEW, HOST_HEADER + AUTH + JSON_HEADER)
            finish_check()
            (response,) = parse_responses(client.received())
            self.check(pattern, "POST", response)

    def test_all_responses(self) -> None:
        """All described responses occur and match, and no others."""
        for pattern, method, _ in operations():
            path = pattern.format(pool="app", address="10.0.0.1:80", file="main.js")
            self.check(pattern, method, self.admin.request(method, path))
            self.check(pattern, method, self.admin.request(method, path, fields=b"Host: evil\r\n"))
            for pool, address in (("nope", "10.0.0.1:80"), ("app", "10.8.8.8:80"), ("app", "x")):
                unknown = pattern.format(pool=pool, address=address, file="main.js")
                if unknown != path and ("{address}" in pattern or pool == "nope"):
                    self.check(pattern, method, self.request(method, unknown, {"weight": 1}))
        self._check_bodies()
        self._check_registrations()
        self._check_queries()
        self._check_page()
        self._check_reloads()
        self.check(
            SERVER_PATH, "PATCH", self.request("PATCH", SERVER, {"weight": 3, "state": "drain"})
        )
        self.check("/readyz", "GET", self.request("GET", "/readyz"))
        self.check(SERVER_PATH, "DELETE", self.request("DELETE", SERVER))
        self.request("DELETE", "/upstreams/app/10.0.0.2:80")
        self.request("DELETE", "/upstreams/app/10.9.9.9:80")
        self.check("/readyz", "GET", self.request("GET", "/readyz"))
        described = {
            (method, path, int(status))
            for path, method, operation in operations()
            for status in operation["responses"]
        }
        self.assertEqual(described - self.seen, set())

    def _check_bodies(self) -> None:
        """Send bodies of a wrong type, content, form or size."""
        for pattern, method, operation in operations():
            if "requestBody" in operation or pattern == "/reload":
                path = pattern.format(pool="app", address="10.0.0.1:80", file="main.js")
                self.check(
                    pattern, method, self.request(method, path, b"{", b"Content-Type: a/b\r\n")
                )
                self.check(pattern, method, self.request(method, path, {"other": 1}))
                self.check(pattern, method, self.request(method, path, b"["))
            if "requestBody" in operation:
                self.check(pattern, method, self.request(method, path, b"x" * (MAX_BODY + 1)))

    def _check_registrations(self) -> None:
        """Register servers by both paths."""
        self.register("/register", "/register")
        self.register("/upstreams/app", "/upstreams/{pool}")

    def _check_queries(self) -> None:
        """Query servers with failures, requests in flight and every source."""
        balancer = self.admin.balancer
        balancer.advance(1)
        pool = balancer.service.default_pool
        pool.health.check_finished(pool.server_set.servers[0], True, "status 200")
        balancer.client().send(GET)
        balancer.connectors[0].refuse()
        self.check("/explain", "GET", self.request("GET", "/explain?target=/"))
        for _ in range(2):
            for path, methods in ROUTES.items():
                if "GET" in methods:
                    url_path = path.format(pool="app", address="10.0.0.1:80", file="main.js")
                    self.check(path, "GET", self.request("GET", url_path))
            self.check("/requests", "GET", self.request("GET", "/requests?limit=0"))
            pool.server_set.add(
                ServerSettings(pool.server_set.servers[0].address), ServerSource.DEMO
            )
        balancer.accept().send(OK)
        for server in pool.server_set.servers[-2:]:
            pool.server_set.remove(server)

    def _check_page(self) -> None:
        """Request a file that does not exist, and one stream more than allowed."""
        self.check("/page/{file}", "GET", self.request("GET", "/page/nothing.js"))
        self.patch(events, "MAX_VIEWERS", 0)
        self.check("/events", "GET", self.request("GET", "/events"))

    def _check_reloads(self) -> None:
        """Reload valid and invalid configurations."""
        service = self.admin.balancer.service
        changed = evolve(service.settings, drain_timeout=7.0)
        service.load_settings = lambda: changed
        self.check("/reload", "POST", self.request("POST", "/reload"))
        service.load_settings = self._reject
        self.check("/reload", "POST", self.request("POST", "/reload"))

    def _reject(self) -> Any:
        """Raise the error of an invalid configuration."""
        raise ConfigError("invalid")

    def test_document(self) -> None:
        """`GET /openapi.json` returns the document."""
        response = self.request("GET", "/openapi.json")
        self.assertEqual(response.body, openapi_json())
        self.assertEqual(response.json, openapi_document())


SERVER_PATH = "/upstreams/{pool}/{address}"


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed")
def test_schemathesis(tmp_path: Path) -> None:
    """Generated requests get responses that match the document."""
    port = free_port()
    (tmp_path / "token").write_text("sesame\n")
    with (
        ScriptedServer(respond_with("one")) as first,
        ScriptedServer(respond_with("two")) as second,
    ):
        options = ["--admin", f"127.0.0.1:{port}", "--admin-token-file", str(tmp_path / "token")]
        options += ["--upstream", first.address, "--upstream", second.address]
        with run_balancer(tmp_path, *options):
            config = tmp_path / "schemathesis.toml"
            # Existing names, so that not every response is a 404.
            names = {"path.pool": "app", "path.address": first.address}
            names |= {"query.target": "/v1", "query.frontend": "web", "query.client": "192.0.2.7"}
            names["path.file"] = "main.js"
            lines = (f"{json.dumps(name)} = {json.dumps(value)}" for name, value in names.items())
            config.write_text("\n".join(("[parameters]", *lines, "")))
            for phases, file in (("coverage", ()), ("examples,fuzzing", ("--config-file", config))):
                result = subprocess.run(
                    [
                        *(str(Path(sys.executable).with_name("schemathesis")), *file, "run"),
                        *("--phases", phases, "--max-examples", "20", "--generation-deterministic"),
                        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
                        # A stream has no end.
                        *("--exclude-path", "/events"),
                        # The schema does not describe the syntax of addresses.
                        *("--header", "Authorization: Bearer sesame", "--no-color"),
                        f"http://127.0.0.1:{port}/openapi.json",
                    ],
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=60,
                    check=False,
                )
                assert result.returncode == 0, result.stdout.decode()
