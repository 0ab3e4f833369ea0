"""Fixtures for all tests: one real Kafka and Redis for the run, and a world of its own for each test."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from pydantic import SecretStr

from connectors.settings import Settings
from connectors.tracing import configure_tracing
from sluice import stack as local_stack

# A shared machine pauses now and then: examples are bounded by number, not by time.
settings.register_profile("sluice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: the last one to begin is what everybody waits for, where files run beside each other."""
    longest_first = ("chaos", "integration", "browser")
    items.sort(key=lambda item: next((n for n, mark in enumerate(longest_first) if item.get_closest_marker(mark)), 9))


@pytest.fixture(scope="session", autouse=True)
def _tracing() -> None:
    configure_tracing("tests")


@dataclass(frozen=True)
class StackAddresses:
    """Where the run's Kafka and Redis are."""

    kafka_bootstrap: str
    redis_url: str


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackAddresses]:
    """A real Kafka and Redis, found or started as `sluice up` does, and stopped after the run if we started them."""
    state_dir = Path(os.environ.get("SLUICE_STATE_DIR") or tmp_path_factory.mktemp("stack"))
    with local_stack.start(state_dir) as running:
        yield StackAddresses(running.kafka_bootstrap, running.redis_url)


@pytest.fixture
def prefix() -> str:
    """A topic prefix and Redis namespace that no other test has."""
    return f"t{uuid4().hex[:10]}."


@pytest.fixture
def stack_settings(stack: StackAddresses, prefix: str) -> Settings:
    """Settings for the run's stack, with fresh topics and few partitions."""
    return Settings(
        kafka_bootstrap=stack.kafka_bootstrap,
        redis_url=SecretStr(stack.redis_url),
        topic_prefix=prefix,
        topic_partitions=3,
    )
