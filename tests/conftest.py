"""Fixtures that tests of several folders share."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No test is a timed test: what a busy machine takes long for is not wrong.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real datasets, in a folder beside the project; the test is skipped where they are not there."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real datasets are not there")
    return folder
