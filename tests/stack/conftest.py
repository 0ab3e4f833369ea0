"""Fixtures for the stack's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sluice.stack import StateUnreadable, processes
from sluice.stack.state import StateDir


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    """A state directory whose servers are gone after the test."""
    directory = StateDir(tmp_path / "state")
    yield directory
    try:
        services = directory.read().services
    except StateUnreadable:
        return
    for record in services.values():
        if record.process is not None:
            processes.kill(record.process)
