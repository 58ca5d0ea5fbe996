"""
Test suite of balancebeam.

Test cases are run by trial and by pytest; plain test functions (`tests/system`)
are run by pytest only.
"""

import os

from hypothesis import settings

# CI derandomizes Hypothesis, so that a failure there is due to the change under test;
# local runs draw new examples each time. No deadline per example, because machines may be slow.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")
