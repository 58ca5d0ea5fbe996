"""The outlier-ejection state of one server; `ejection.OutlierDetector` changes it."""

from __future__ import annotations

from attrs import Factory, define


@define
class EjectionState:
    """
    What passive health checks know of one server; times are on the ticker.

    Attributes:
        consecutive_failures: Connection failures and timeouts since the last success.
        consecutive_bad_answers: Malformed and truncated responses since the last success.
        cooldown: Length of the latest ejection in seconds, which the next one doubles;
            0.0 after a success.
        ejected_until: End of the cooldown.
        recently_ejected: Requests sent before the latest ejection may still be in flight;
            their failures do not count again.
        half_open: The cooldown has expired, and no trial request has been sent yet.
        trial_requests: Requests sent while the server was under observation; only their
            outcome proves anything about it.
        trial_started_at: When the trial request of a half-open server was sent.
        healthy_since: The latest failure or reset; without another one the observation
            ends one `max_trial_time` later.
    """

    consecutive_failures: int = 0
    cooldown: float = 0.0
    ejected_until: float = 0.0
    recently_ejected: bool = False
    half_open: bool = False
    trial_requests: set[object] = Factory(set)
    trial_started_at: float = 0.0
    healthy_since: float = 0.0
    consecutive_bad_answers: int = 0
