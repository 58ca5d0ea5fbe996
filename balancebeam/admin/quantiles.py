"""Quantiles from histograms with fixed buckets, by linear interpolation as Prometheus does."""

from __future__ import annotations

from collections.abc import Sequence

from balancebeam.upstream.server import Server

# The number of samples by bucket; the last bucket has no upper bound.
Buckets = tuple[int, ...]


def server_buckets(server: Server) -> Buckets:
    """Return the histogram of the time to the first byte of responses of `server`."""
    return ()


def difference(newest: Buckets, oldest: Buckets) -> Buckets:
    """Return the samples of `newest` that `oldest` does not have."""
    return tuple(new - old for new, old in zip(newest, oldest)) if oldest else newest


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
