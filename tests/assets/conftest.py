import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.assets.projects import Workshop


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Opening an instance sets variables for its children; a test leaves none behind."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop.at(tmp_path)
