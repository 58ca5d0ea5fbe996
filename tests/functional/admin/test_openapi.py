"""The description of the admin listener, held against what it does."""

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
ONE = "/upstreams/app/10.0.0.1:80"
AUTH = b"Authorization: Bearer sesame\r\n"


def operations() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """What is described: paths, methods and operations."""
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

# What `mistakes` knows of, and what says nothing about values.
KEYWORDS = {"type", "enum", "const", "anyOf", "$ref", "properties", "required", "items"}
KEYWORDS |= {"additionalProperties", "minimum", "maximum", "maxLength", "minProperties", "format"}
KEYWORDS |= {"default", "examples"}


def is_of(value: Any, kind: str) -> bool:
    """Whether `value` is of a type of JSON Schema."""
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def mistakes(value: Any, schema: Mapping[str, Any], where: str = "it") -> Iterator[str]:
    """Where `value` is not as `schema` says, in the part of JSON Schema that is used here."""
    assert set(schema) <= KEYWORDS, schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from mistakes(value, openapi_document()["components"]["schemas"][name], where)
    if "anyOf" in schema and all(list(mistakes(value, one)) for one in schema["anyOf"]):
        yield f"{where} is none of those"
    if "const" in schema and value != schema["const"]:
        yield f"{where} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is none of {schema['enum']}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(is_of(value, kind) for kind in kinds):
        yield f"{where} is of another type"
    if schema.get("format") == "date-time" and isinstance(value, str):
        datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, int) and not (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
    ):
        yield f"{where} is out of range"
    if isinstance(value, list) and "items" in schema:
        for number, one in enumerate(value):
            yield from mistakes(one, schema["items"], f"{where}[{number}]")
    if isinstance(value, dict) and "properties" in schema:
        yield from _mistakes_of_object(value, schema, where)


def _mistakes_of_object(
    value: Mapping[str, Any], schema: Mapping[str, Any], where: str
) -> Iterator[str]:
    for name in schema["required"]:
        if name not in value:
            yield f"{where} has no {name}"
    for name, one in value.items():
        if name in schema["properties"]:
            yield from mistakes(one, schema["properties"][name], f"{where}.{name}")
        else:
            yield f"{where} has {name}"


class OpenApiDocumentTests(SynchronousTestCase):
    """What it says of itself."""

    def test_all_of_the_table_and_nothing_else(self) -> None:
        described = {(path, method) for path, method, _ in operations()}
        table = {(path, method) for path, methods in ROUTES.items() for method in methods}
        self.assertEqual(described, table)

    def test_parameters_are_those_of_the_path(self) -> None:
        for path, item in openapi_document()["paths"].items():
            named = [one["name"] for one in item.get("parameters", [])]
            self.assertEqual(named, [part[1:-1] for part in path.split("/") if "{" in part])

    def test_bodies(self) -> None:
        with_body = {(p, m) for p, m, operation in operations() if "requestBody" in operation}
        self.assertEqual(
            with_body,
            {
                ("/register", "POST"),
                ("/upstreams/{pool}", "POST"),
                ("/upstreams/{pool}/{address}", "PATCH"),
            },
        )

    def test_states_and_origins(self) -> None:
        schemas = openapi_document()["components"]["schemas"]
        states = schemas["Change"]["properties"]["state"]["enum"]
        self.assertEqual(set(states), {state.value for state in AdminState})
        origins = schemas["Server"]["properties"]["source"]["enum"]
        self.assertEqual(set(origins), {origin.value for origin in ServerSource})

    def test_the_validator_sees_mistakes(self) -> None:
        server = {"$ref": "#/components/schemas/Server"}
        self.assertTrue(list(mistakes({}, server)))
        self.assertTrue(list(mistakes(True, {"type": "integer"})))
        self.assertTrue(list(mistakes(257, {"type": "integer", "minimum": 0, "maximum": 256})))
        self.assertTrue(list(mistakes([1], {"type": "array", "items": {"type": "string"}})))
        self.assertTrue(list(mistakes(None, {"anyOf": [{"type": "string"}]})))
        error = {"$ref": "#/components/schemas/Error"}
        self.assertTrue(list(mistakes({"status": "error", "data": "x", "y": 1}, error)))
        self.assertFalse(list(mistakes({"status": "error", "data": "x"}, error)))


class ResponseSchemaTests(SynchronousTestCase):
    """Every status that is described is produced, and looks as it is described."""

    def setUp(self) -> None:
        self.admin = MemoryAdmin(admin=AdminSettings(token=SecretSource("sesame")), servers=2)
        self.addCleanup(self.admin.stop)
        self.seen: set[tuple[str, str, int]] = set()

    def ask(
        self, method: str, path: str, body: Any = None, fields: bytes = JSON_HEADER
    ) -> Response:
        return self.admin.request(method, path, body, HOST_HEADER + AUTH + fields)

    def see(self, pattern: str, method: str, reply: Response) -> None:
        """Hold `reply` against the description."""
        operation = openapi_document()["paths"][pattern][method.lower()]
        self.assertIn(str(reply.status), operation["responses"], (method, pattern))
        (described,) = operation["responses"][str(reply.status)]["content"].items()
        kind, media = described
        self.assertEqual(reply.fields[b"content-type"].decode().partition(";")[0], kind)
        if kind == "application/json":
            found = list(mistakes(reply.json, media["schema"]))
            self.assertEqual(found, [], (method, pattern, reply))
        self.seen.add((method, pattern, reply.status))

    def register(self, path: str, pattern: str) -> None:
        for end in (self.admin.pass_check, self.admin.fail_check):
            client = self.admin.start_request("POST", path, NEW, HOST_HEADER + AUTH + JSON_HEADER)
            end()
            (reply,) = parse_responses(client.received())
            self.see(pattern, "POST", reply)

    def test_all(self) -> None:
        for pattern, method, _ in operations():
            path = pattern.format(pool="app", address="10.0.0.1:80")
            self.see(pattern, method, self.admin.request(method, path))
            self.see(pattern, method, self.admin.request(method, path, fields=b"Host: evil\r\n"))
            for pool, address in (("nope", "10.0.0.1:80"), ("app", "10.8.8.8:80"), ("app", "x")):
                other = pattern.format(pool=pool, address=address)
                if other != path and ("{address}" in pattern or pool == "nope"):
                    self.see(pattern, method, self.ask(method, other, {"weight": 1}))
        self._bodies()
        self._registrations()
        self._readings()
        self._reloads()
        self.see(ONE_OF, "PATCH", self.ask("PATCH", ONE, {"weight": 3, "state": "drain"}))
        self.see("/readyz", "GET", self.ask("GET", "/readyz"))
        self.see(ONE_OF, "DELETE", self.ask("DELETE", ONE))
        self.ask("DELETE", "/upstreams/app/10.0.0.2:80")
        self.ask("DELETE", "/upstreams/app/10.9.9.9:80")
        self.see("/readyz", "GET", self.ask("GET", "/readyz"))
        described = {
            (method, path, int(status))
            for path, method, operation in operations()
            for status in operation["responses"]
        }
        self.assertEqual(described - self.seen, set())

    def _bodies(self) -> None:
        for pattern, method, operation in operations():
            if "requestBody" in operation or pattern == "/reload":
                path = pattern.format(pool="app", address="10.0.0.1:80")
                self.see(pattern, method, self.ask(method, path, b"{", b"Content-Type: a/b\r\n"))
                self.see(pattern, method, self.ask(method, path, {"other": 1}))
                self.see(pattern, method, self.ask(method, path, b"["))
            if "requestBody" in operation:
                self.see(pattern, method, self.ask(method, path, b"x" * (MAX_BODY + 1)))

    def _registrations(self) -> None:
        self.register("/register", "/register")
        self.register("/upstreams/app", "/upstreams/{pool}")

    def _readings(self) -> None:
        balancer = self.admin.balancer
        balancer.advance(1)
        pool = balancer.service.default_pool
        pool.health.check_finished(pool.server_set.servers[0], True, "fine")
        balancer.client().send(GET)
        balancer.connectors[0].refuse()
        for _ in range(2):
            for path, methods in ROUTES.items():
                if "GET" in methods:
                    given = path.format(pool="app", address="10.0.0.1:80")
                    self.see(path, "GET", self.ask("GET", given))
            pool.server_set.add(
                ServerSettings(pool.server_set.servers[0].address), ServerSource.DEMO
            )
        balancer.accept().send(OK)
        for server in pool.server_set.servers[-2:]:
            pool.server_set.remove(server)

    def _reloads(self) -> None:
        service = self.admin.balancer.service
        changed = evolve(service.settings, drain_timeout=7.0)
        service.load_settings = lambda: changed
        self.see("/reload", "POST", self.ask("POST", "/reload"))
        service.load_settings = self._refuse
        self.see("/reload", "POST", self.ask("POST", "/reload"))

    def _refuse(self) -> Any:
        raise ConfigError("something is wrong")

    def test_the_document_itself(self) -> None:
        reply = self.ask("GET", "/openapi.json")
        self.assertEqual(reply.body, openapi_json())
        self.assertEqual(reply.json, openapi_document())


ONE_OF = "/upstreams/{pool}/{address}"


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="there is no schemathesis here")
def test_schemathesis(tmp_path: Path) -> None:
    """What it makes of the description is answered as the description says."""
    port = free_port()
    (tmp_path / "token").write_text("sesame\n")
    with ScriptedServer(respond_with("one")) as one, ScriptedServer(respond_with("two")) as two:
        options = ["--admin", f"127.0.0.1:{port}", "--admin-token-file", str(tmp_path / "token")]
        options += ["--upstream", one.address, "--upstream", two.address]
        with run_balancer(tmp_path, *options):
            config = tmp_path / "schemathesis.toml"
            # What is there, so that not everything is a 404.
            names = {"path.pool": "app", "path.address": one.address}
            lines = (f"{json.dumps(name)} = {json.dumps(value)}" for name, value in names.items())
            config.write_text("\n".join(("[parameters]", *lines, "")))
            for phases, file in (("coverage", ()), ("examples,fuzzing", ("--config-file", config))):
                done = subprocess.run(
                    [
                        *(str(Path(sys.executable).with_name("schemathesis")), *file, "run"),
                        *("--phases", phases, "--max-examples", "20", "--generation-deterministic"),
                        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
                        # An address is more than a schema can tell.
                        *("--header", "Authorization: Bearer sesame", "--no-color"),
                        f"http://127.0.0.1:{port}/openapi.json",
                    ],
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=60,
                    check=False,
                )
                assert done.returncode == 0, done.stdout.decode()
