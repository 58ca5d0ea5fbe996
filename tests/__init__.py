"""Tests: unit tests run under trial and pytest, those of the program under pytest."""

import os

from hypothesis import settings

# In CI the same examples every time: a new find belongs to who looks for one.
# Elsewhere they differ from run to run. Machines may be slow.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("here", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")
