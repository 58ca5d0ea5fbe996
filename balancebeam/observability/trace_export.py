"""Late import of the OpenTelemetry library, with errors for the administrator."""

from __future__ import annotations

from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import TracingSettings
from balancebeam.observability.tracing import SpanExporter


def load_exporter(settings: TracingSettings) -> SpanExporter:
    """
    Return the exporter for a collector; no connection is made.

    Raises:
        ConfigError: The library is not installed, or rejects the settings.
    """
    try:
        from balancebeam.observability.otlp import OtlpExporter
    except ImportError as error:
        raise ConfigError(
            f"[tracing]: the library {error.name or 'opentelemetry'} is not installed: "
            "pip install 'balancebeam[otlp]'"
        ) from error
    try:
        return OtlpExporter(settings)
    except (ValueError, OSError) as error:
        # From the environment variables of OpenTelemetry.
        raise ConfigError(f"[tracing]: {error}") from error
