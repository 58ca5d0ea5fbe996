"""Settings of tracing."""

from __future__ import annotations

from attrs import field, frozen

# The address of a collector on this machine: the default of OTLP over HTTP.
DEFAULT_ENDPOINT = "http://127.0.0.1:4318/v1/traces"


@frozen
class TracingSettings:
    """
    Tracing of HTTP requests.

    Attributes:
        endpoint: URL to which spans are sent by OTLP over HTTP.
        service_name: `service.name` of the spans.
        sample_ratio: share of the traces that start here that are recorded, 0 to 1.
        trusted_parents_only: continue a trace for trusted proxies only.
        headers: names and values of header fields for the collector; not shown by `repr`.
        timeout: time limit of one export, retries included.
        queue_size: most requests that wait for their export.
    """

    endpoint: str = DEFAULT_ENDPOINT
    service_name: str = "balancebeam"
    # As in Kong. A span costs some 100 us of CPU in a thread beside the event loop.
    sample_ratio: float = 0.01
    trusted_parents_only: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    # Half of OpenTelemetry's default, because the requests of that time have to fit into the queue.
    timeout: float = 5.0
    # The default of OpenTelemetry's BatchSpanProcessor.
    queue_size: int = 2048
