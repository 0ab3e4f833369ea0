"""A whole small system for the demo: intake, one lane and the bridge as child processes, on given addresses."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from policy.catalogue import Catalogue
from sluice.role_process import RoleProcess
from sluice.stack import ports

PREFIX = "demo."
PARTITIONS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSystem:
    """Where things are while the system runs."""

    page_url: str
    roles: tuple[RoleProcess, ...]


@asynccontextmanager
async def demo_system(
    settings: Settings,
    catalogue: Catalogue,
    *,
    provider: str,
    log_folder: Path,
) -> AsyncIterator[DemoSystem]:
    """Creates the topics, starts the roles, waits until they are ready, and stops them in the end."""
    await create_topics(settings, settings.topics.specs(list(catalogue.providers)))
    (page_port,) = ports.choose(1)
    environment = {
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "SLUICE_TOPIC_PREFIX": settings.topic_prefix,
        "SLUICE_TOPIC_PARTITIONS": str(settings.topic_partitions),
        "SLUICE_PROVIDERS_FILE": str(settings.providers_file),
        "SLUICE_BRIDGE__PORT": str(page_port),
        "SLUICE_BRIDGE__ALLOW_ALL": "true",
    }
    roles = [
        RoleProcess(*arguments, environment=environment, log_path=log_folder / f"{'-'.join(arguments)}.log")
        for arguments in (("intake",), ("lane", provider), ("bridge",))
    ]
    try:
        await asyncio.gather(*(role.ready() for role in roles))
        yield DemoSystem(
            page_url=f"http://127.0.0.1:{page_port}/",
            roles=tuple(roles),
        )
    finally:
        await asyncio.gather(*(role.stop() for role in roles))


def write_catalogue(path: Path, provider: str, lines: Mapping[str, object]) -> None:
    """A `providers.toml` with one provider. Values are written as JSON, which TOML reads alike for these types."""
    tables: dict[str, list[str]] = {"": []}
    for name, value in lines.items():
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).append(f"{key} = {json.dumps(value)}")
    text = ""
    for table, entries in tables.items():
        text += f"[providers.{provider}{'.' + table if table else ''}]\n" + "\n".join(entries) + "\n\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
