"""Settings for the whole test suite."""

from __future__ import annotations

from hypothesis import settings

# No deadline for one example: two shared cores stall now and then, and pytest-timeout catches what hangs.
settings.register_profile("lutq", deadline=None)
settings.load_profile("lutq")
