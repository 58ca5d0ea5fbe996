"""
The OpenAPI 3.1 document of the admin API.

Tests hold it against the route table and against the responses.
"""

from __future__ import annotations

import json
from typing import Any

from balancebeam import __version__
from balancebeam.admin.parsing import MAX_ADDRESS_LENGTH
from balancebeam.core.settings import MAX_WEIGHT

Schema = dict[str, Any]

_WEIGHT: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_WEIGHT}
_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
_COUNT: Schema = {"type": "integer", "minimum": 0}

_FORBIDDEN = "The host name is not allowed, or the request comes from a page of another origin."


def openapi_json() -> bytes:
    """Return the document as JSON."""
    return json.dumps(openapi_document(), indent=2).encode() + b"\n"


def openapi_document() -> Schema:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "balancebeam",
            "version": __version__,
            "description": "Inspect and change a running balancer.",
        },
        "security": [{}, {"token": []}, {"password": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            },
            "schemas": _schemas(),
        },
    }


def _paths() -> Schema:
    server = _success({"$ref": "#/components/schemas/Server"})
    servers = _success({"type": "array", "items": {"$ref": "#/components/schemas/Server"}})
    registered = _success(
        _object({"server": {"type": "string"}, "weight": _WEIGHT}, ["server", "weight"])
    )
    success = {"200": _json("The server was added, or its weight updated.", registered)}
    unsupported = {"415": _error("The body is not application/json.")}
    unknown_pool = {"404": _error("The pool does not exist.")}
    unknown_server = {"404": _error("The pool or the server does not exist.")}
    return {
        "/": {"get": _operation("Admin page", {"200": _text("An HTML page.", "text/html")})},
        "/page/{file}": {
            "parameters": _parameter("file"),
            "get": _operation(
                "A file of the admin page",
                {
                    "200": _text("Script, style or image.", "text/javascript"),
                    "404": _error("There is no such file."),
                },
            ),
        },
        "/events": {
            "get": _operation(
                "Snapshots every second, and changes of server states",
                {
                    "200": _text("Server-sent events without end.", "text/event-stream"),
                    "503": _error("There are too many viewers."),
                },
            )
        },
        "/register": {
            "post": _operation(
                "Add a server to the pool of the first frontend",
                {
                    **success,
                    "400": _fail("The body is malformed, or a field is missing or invalid."),
                    "403": _either(f"The body has an unknown field. {_FORBIDDEN}"),
                    "404": _fail("The server failed its health check."),
                    **unsupported,
                },
                body="Registration",
            )
        },
        "/upstreams": {
            "get": _operation("List all servers", {"200": _json("The servers.", servers)})
        },
        "/upstreams/{pool}": {
            "parameters": _parameter("pool"),
            "get": _operation(
                "List the servers of a pool",
                {"200": _json("The servers.", servers), **unknown_pool},
            ),
            "post": _operation(
                "Add a server to a pool",
                {
                    **success,
                    "400": _either("The body is malformed, or a field is missing or invalid."),
                    "404": _either(
                        "The server failed its health check, or the pool does not exist."
                    ),
                    **unsupported,
                },
                body="Registration",
            ),
        },
        "/upstreams/{pool}/{address}": {
            "parameters": [*_parameter("pool"), *_parameter("address")],
            "get": _operation(
                "Show a server", {"200": _json("The server.", server), **unknown_server}
            ),
            "patch": _operation(
                "Set the weight or the admin state of a server",
                {
                    "200": _json("The server after the change.", server),
                    "400": _error("The body is malformed, or a field is unknown or invalid."),
                    **unknown_server,
                    **unsupported,
                },
                body="Change",
            ),
            "delete": _operation(
                "Drain a server, then remove it",
                {"200": _json("The draining server.", server), **unknown_server},
            ),
        },
        "/metrics": {
            "get": _operation(
                "Metrics",
                {"200": _text("The text format of Prometheus, or OpenMetrics.", "text/plain")},
            )
        },
        "/healthz": {
            "get": _operation(
                "Liveness of the process",
                {"200": _json("The process is running.", _success({"type": "string"}))},
            )
        },
        "/readyz": {
            "get": _operation(
                "Readiness for traffic",
                {
                    "200": _json("Traffic can be served.", _success({"type": "string"})),
                    "503": _error("The balancer is draining, or a frontend has no server."),
                },
            )
        },
        "/config": {
            "get": _operation(
                "The effective configuration, secrets masked",
                {"200": _text("A configuration file.", "application/toml")},
            )
        },
        "/reload": {"post": _operation("Reload the configuration", _reload_responses())},
        "/openapi.json": {
            "get": _operation("This document", {"200": _json("OpenAPI 3.1.", {"type": "object"})})
        },
    }


def _reload_responses() -> Schema:
    changed = {"changed": {"type": "array", "items": {"type": "string"}}}
    return {
        "200": _json("The changes, a text each.", _success(_object(changed, ["changed"]))),
        "400": _error("The request has a body other than an empty object."),
        "415": _error("The body is not application/json."),
        "422": _error("The configuration is invalid; the previous one stays in force."),
    }


def _schemas() -> Schema:
    return {
        "Registration": _object(
            {
                "address": {
                    "type": "string",
                    "maxLength": MAX_ADDRESS_LENGTH,
                    "examples": ["http://127.0.0.1:1080"],
                },
                "weight": {**_WEIGHT, "default": 1},
            },
            ["address"],
        ),
        "Change": {
            **_object(
                {"weight": _WEIGHT, "state": {"enum": ["ready", "drain", "maintenance"]}}, []
            ),
            "minProperties": 1,
        },
        "Server": _server(),
        "Error": _object({"status": {"const": "error"}, "data": {"type": "string"}}),
        "Fail": _object(
            {"status": {"const": "fail"}, "data": _object({"title": {"type": "string"}})}
        ),
    }


def _server() -> Schema:
    check = _object({"time": _TIME, "passed": {"type": "boolean"}, "reason": {"type": "string"}})
    return _object(
        {
            "pool": {"type": "string"},
            "address": {"type": "string"},
            "weight": _WEIGHT,
            "state": {"enum": ["up", "down", "draining", "maintenance"]},
            "reason": {"type": "string"},
            "since": _TIME,
            "in_flight": _COUNT,
            "requests": _COUNT,
            "failures": _COUNT,
            "backup": {"type": "boolean"},
            "tls": {"type": "boolean"},
            "source": {"enum": ["configured", "registered", "demo"]},
            "last_check": {"anyOf": [{"type": "null"}, check]},
        }
    )


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _success(data: Schema) -> Schema:
    return _object({"status": {"const": "success"}, "data": data})


def _json(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _text(text: str, kind: str) -> Schema:
    return {"description": text, "content": {kind: {"schema": {"type": "string"}}}}


def _error(text: str) -> Schema:
    return _json(text, {"$ref": "#/components/schemas/Error"})


def _fail(text: str) -> Schema:
    return _json(text, {"$ref": "#/components/schemas/Fail"})


def _either(text: str) -> Schema:
    names = ("Error", "Fail")
    return _json(text, {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]})


def _parameter(name: str) -> list[Schema]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]


def _operation(text: str, responses: Schema, body: str | None = None) -> Schema:
    operation: Schema = {
        "summary": text,
        "responses": {
            **responses,
            "401": _error("Authentication required."),
            "403": responses.get("403", _error(_FORBIDDEN)),
        },
    }
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body}"}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
        operation["responses"]["413"] = _error("The body is too large.")
    return operation
