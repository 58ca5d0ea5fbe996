"""Quantiles from histograms with fixed buckets, by linear interpolation as Prometheus does."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from balancebeam.admin.interfaces import Pool
from balancebeam.observability.histogram import BOUNDS
from balancebeam.upstream.server import Server

# The number of samples by bucket; the last bucket has no upper bound.
Buckets = tuple[int, ...]


def pool_buckets(pool: Pool) -> Buckets:
    """Return the histogram of the duration of requests of `pool`."""
    return tuple(pool.latency.request.counts)


def server_buckets(pool: Pool, server: Server) -> Buckets:
    """Return the histogram of the time to the first byte of `server`; empty if it was removed."""
    latency = pool.latency.servers.get(server)
    return () if latency is None else tuple(latency.first_byte.counts)


def window_quantiles(samples: deque[Buckets]) -> tuple[float | None, float | None]:
    """
    Return the median and the 99th percentile of what was counted between the first and the last
    of `samples`, in seconds; `None` if nothing was.
    """
    if not samples or not samples[-1] or samples[-1] == samples[0]:
        return None, None
    oldest = samples[0] or (0,) * len(samples[-1])
    counts = [new - old for new, old in zip(samples[-1], oldest)]
    return quantile(BOUNDS, counts, 0.5), quantile(BOUNDS, counts, 0.99)


def quantile(bounds: Sequence[float], counts: Sequence[int], fraction: float) -> float | None:
    """
    Estimate a quantile.

    Args:
        bounds: The upper bounds of the buckets, except for the last.
        counts: The number of samples by bucket.
        fraction: 0.99 for the 99th percentile.

    Returns:
        The estimate, at most the last bound; `None` without samples.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank = fraction * total
    below, lower = 0, 0.0
    for bound, count in zip(bounds, counts):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below += count
        lower = bound
    return lower
