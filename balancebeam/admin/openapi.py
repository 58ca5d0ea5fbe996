"""The description of the admin listener, in the form of OpenAPI 3.1."""

from __future__ import annotations

import json
from typing import Any

from balancebeam import __version__
from balancebeam.admin.operations import MAX_ADDRESS_LENGTH, MAX_WEIGHT

Schema = dict[str, Any]

_WEIGHT: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_WEIGHT}
_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
_COUNT: Schema = {"type": "integer", "minimum": 0}


def openapi_json() -> bytes:
    """The document, as JSON."""
    return json.dumps(openapi_document(), indent=2).encode() + b"\n"


def openapi_document() -> Schema:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "balancebeam",
            "version": __version__,
            "description": "What an operator can see and change of a running balancer.",
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
    done = _success(
        _object({"server": {"type": "string"}, "weight": _WEIGHT}, ["server", "weight"])
    )
    register = {"200": _json("It gets traffic.", done), "404": _fail("It is not alive.")}
    malformed = {"400": _fail("Missing or malformed."), "415": _error("It is no JSON.")}
    address = [*_name("pool"), *_name("address")]
    return {
        "/": {"get": _operation("A live page.", {"200": _text("A page.", "text/html")})},
        "/register": {
            "post": _operation(
                "Add a server to the first frontend's pool.",
                {
                    **register,
                    **malformed,
                    "403": _either("An unknown field, or not from there, or not by that name."),
                },
                body="Registration",
            )
        },
        "/upstreams": {"get": _operation("All servers.", {"200": _json("All.", servers)})},
        "/upstreams/{pool}": {
            "parameters": _name("pool"),
            "get": _operation(
                "The servers of a pool.",
                {"200": _json("Those.", servers), "404": _error("There is no such pool.")},
            ),
            "post": _operation(
                "Add a server to a pool.",
                {
                    "200": register["200"],
                    "400": _either("Missing, malformed or unknown."),
                    "404": _either("It is not alive, or there is no such pool."),
                    "415": _error("It is no JSON."),
                },
                body="Registration",
            ),
        },
        "/upstreams/{pool}/{address}": {
            "parameters": address,
            "get": _operation(
                "One server.", {"200": _json("It.", server), "404": _error("There is none.")}
            ),
            "patch": _operation(
                "Change the weight or the state of a server.",
                {
                    "200": _json("As it is now.", server),
                    "400": _error("A wish that cannot be granted."),
                    "404": _error("There is none."),
                    "415": _error("It is no JSON."),
                },
                body="Change",
            ),
            "delete": _operation(
                "Drain a server, and forget it then.",
                {"200": _json("As it was.", server), "404": _error("There is none.")},
            ),
        },
        "/metrics": {
            "get": _operation("For Prometheus.", {"200": _text("Samples.", "text/plain")})
        },
        "/healthz": {
            "get": _operation(
                "Whether the process lives.",
                {"200": _json("It does.", _success({"type": "string"}))},
            )
        },
        "/readyz": {
            "get": _operation(
                "Whether traffic can be served.",
                {"200": _json("It can.", _success({"type": "string"})), "503": _error("Why not.")},
            )
        },
        "/config": {
            "get": _operation(
                "The effective configuration, without secrets.",
                {"200": _text("TOML.", "application/toml")},
            )
        },
        "/reload": {
            "post": _operation(
                "Read the configuration again.",
                {
                    "200": _json(
                        "What has changed.",
                        _success(
                            _object(
                                {"changed": {"type": "array", "items": {"type": "string"}}},
                                ["changed"],
                            )
                        ),
                    ),
                    "400": _error("There is nothing to say."),
                    "415": _error("It is no JSON."),
                    "422": _error("What is wrong with it; nothing has changed."),
                },
            )
        },
        "/openapi.json": {"get": _operation("This.", {"200": _json("This.", {"type": "object"})})},
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
            "source": {"enum": ["configured", "registered", "demo"]},
            "last_check": {"anyOf": [{"type": "null"}, check]},
        }
    )


# Parts of the form.


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


def _name(name: str) -> list[Schema]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]


def _operation(text: str, responses: Schema, body: str | None = None) -> Schema:
    found: Schema = {
        "summary": text,
        "responses": {
            **responses,
            "401": _error("The token is wanted."),
            "403": responses.get("403", _error("Not from there, or not by that name.")),
        },
    }
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body}"}
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
        found["responses"]["413"] = _error("The body is too large.")
    return found
