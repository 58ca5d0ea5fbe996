"""`docs/admin-api.rst` has every request of the admin API and every field of a server."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin.openapi import openapi_json
from balancebeam.admin.views import server_views
from tests.helpers.documentation import table_rows
from tests.helpers.memory import MemoryBalancer


class AdminPage(SynchronousTestCase):
    """The page and the API agree."""

    def test_every_request_is_documented(self) -> None:
        """The page has the methods and paths of the OpenAPI description, and no others."""
        description = json.loads(openapi_json())
        expected = {
            f"{method.upper()} {path}"
            for path, methods in description["paths"].items()
            for method in methods
            if method in ("get", "post", "patch", "delete")
        }
        rows = table_rows("admin-api.rst", "Requests")
        self.assertEqual({row[0].strip("`") for row in rows}, expected)

    def test_every_field_of_a_server_is_documented(self) -> None:
        """The page has the fields of a server as the API returns it, and no others."""
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        service: Any = balancer.service
        fields = {name for row in server_views(service.pools.values()) for name in row}
        rows = table_rows("admin-api.rst", "Servers")
        documented = {name for row in rows for name in row[0].replace("`", "").split(", ")}
        self.assertEqual(documented, fields)
