"""A whole small system for the demo: topics, intake, one lane and the bridge as child processes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from connectors.kafka.client import client_options
from connectors.kafka.topics_admin import TopicStatus, create_topics
from connectors.settings import Settings
from policy.catalogue import Catalogue
from sluice.role_process import RoleProcess
from sluice.stack import ports

log = structlog.get_logger(__name__)

DRAIN_SECONDS = 2
"""For calls in flight when the demo is interrupted: nobody waits for their answers."""
STOP_SECONDS = 10
"""Then a role is killed. Without Kafka, which may be why we stop, it would wait longer for a goodbye."""
DELETE_SECONDS = 5
CHECK_SECONDS = 0.5


class TopicsError(Exception):
    """The demo's topics could not be created. The message names them, and the broker's reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSystem:
    """Where things are while the system runs."""

    page_url: str
    roles: tuple[RoleProcess, ...]

    def check(self) -> None:
        """Raises `RoleFailedError` where a role has ended."""
        for role in self.roles:
            role.check()


@asynccontextmanager
async def demo_system(
    settings: Settings, catalogue: Catalogue, *, provider: str, log_folder: Path, check: Callable[[], None]
) -> AsyncIterator[DemoSystem]:
    """Creates the topics and starts the roles; yields once they are ready. In the end nothing of it is left.

    Raises `TopicsError`, `RoleFailedError`, and what `check` raises, which is called until they are ready.
    """
    (page_port,) = ports.choose(1)
    environment = {
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "SLUICE_TOPIC_PREFIX": settings.topic_prefix,
        "SLUICE_TOPIC_PARTITIONS": str(settings.topic_partitions),
        "SLUICE_PROVIDERS_FILE": str(settings.providers_file),
        "SLUICE_WORKER__DRAIN_SECONDS": str(DRAIN_SECONDS),
        "SLUICE_BRIDGE__PORT": str(page_port),
        "SLUICE_BRIDGE__ALLOW_ALL": "true",
    }
    async with AsyncExitStack() as context:
        await _create_topics(settings, catalogue, context)
        roles: list[RoleProcess] = []
        context.push_async_callback(_stop, roles)
        for arguments in (("intake",), ("lane", provider), ("control",), ("bridge",)):
            log_path = log_folder / f"{'-'.join(arguments)}.log"
            roles.append(RoleProcess(*arguments, environment=environment, log_path=log_path))
        await _until_ready(roles, check)
        yield DemoSystem(page_url=f"http://127.0.0.1:{page_port}/", roles=tuple(roles))


async def _until_ready(roles: Sequence[RoleProcess], check: Callable[[], None]) -> None:
    all_ready = asyncio.gather(*(role.ready() for role in roles))
    try:
        while not (await asyncio.wait([all_ready], timeout=CHECK_SECONDS))[0]:
            check()
        await all_ready
    finally:
        all_ready.cancel()


async def _stop(roles: Sequence[RoleProcess]) -> None:
    await asyncio.gather(*(role.stop(timeout_seconds=STOP_SECONDS) for role in roles))


async def _create_topics(settings: Settings, catalogue: Catalogue, context: AsyncExitStack) -> None:
    specs = settings.topics.specs(list(catalogue.providers))
    outcomes = await create_topics(settings, specs)
    context.push_async_callback(_delete, settings, [o.name for o in outcomes if o.status is TopicStatus.CREATED])
    problems = [f"{o.name}: {o.problem}" for o in outcomes if o.status is TopicStatus.FAILED]
    if problems:
        raise TopicsError("The demo's topics could not be created. " + "; ".join(problems))


async def _delete(settings: Settings, names: list[str]) -> None:
    """They are of this run alone. Where they cannot be deleted, their retention ends them."""
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        async with asyncio.timeout(DELETE_SECONDS):
            await admin.start()
            await admin.delete_topics(names)
    except (KafkaError, OSError, TimeoutError) as error:
        log.warning("demo_topics_left", topics=names, error=repr(error))
    finally:
        await admin.close()
