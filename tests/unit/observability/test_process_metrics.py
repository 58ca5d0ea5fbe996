"""The metrics of the process."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.observability.process_metrics import add_process_metrics
from balancebeam.observability.prometheus import MetricsRegistry
from tests.helpers.metrics import parse_metrics, sample_key


class ProcessMetricsTests(SynchronousTestCase):
    """CPU time, memory, descriptors and start time."""

    def test_linux(self) -> None:
        """On Linux all metrics are there, with plausible values."""
        registry = MetricsRegistry()
        add_process_metrics(registry)
        samples = parse_metrics(str(registry))
        self.assertGreater(samples[sample_key("process_cpu_seconds_total")], 0)
        if not os.path.exists("/proc/self/statm"):
            return
        self.assertGreater(samples[sample_key("process_resident_memory_bytes")], 10e6)
        self.assertGreater(samples[sample_key("process_virtual_memory_bytes")], 10e6)
        self.assertGreater(samples[sample_key("process_open_fds")], 2)
        started_at = samples[sample_key("process_start_time_seconds")]
        self.assertTrue(time.time() - 86400 < started_at <= time.time() + 2, started_at)

    def test_without_proc(self) -> None:
        """Without procfs the CPU time is still there."""
        registry = MetricsRegistry()
        with tempfile.TemporaryDirectory() as folder:
            add_process_metrics(registry, Path(folder))
        self.assertIn(sample_key("process_cpu_seconds_total"), parse_metrics(str(registry)))
        self.assertNotIn("process_open_fds", str(registry))
