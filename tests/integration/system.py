"""A system under test: roles as child processes on the run's stack, and what came out of it, read from Kafka."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import ConsumerRecord

from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader
from connectors.kafka.topics_admin import create_topics
from connectors.providers.call_journal import read_journal
from connectors.settings import Settings
from policy.retry import made_calls
from schemas import Attempt, Command, LLMRequest, LLMResult, StatusEvent
from schemas.codec import SingleObjectCodec, decode_single_object
from schemas.envelope import cloud_event, header
from sluice.role_process import RoleProcess

LEASE_SECONDS = 2.0
SESSION_SECONDS = 3.0
SPARE = """
[providers.spare]
type = "simulated"
models = ["reading-ease-1"]
local = true
[providers.spare.options]
latency_ms = 20
journal_path = "{journal_path}"
"""
_codec = SingleObjectCodec()


@dataclass
class System:
    """Roles, and the topics they work on."""

    settings: Settings
    folder: Path
    options: Mapping[str, str] = field(default_factory=dict)
    roles: list[RoleProcess] = field(default_factory=list)

    @property
    def journal_path(self) -> Path:
        return self.folder / "provider-journal.jsonl"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP": self.settings.kafka_bootstrap,
            "REDIS_URL": self.settings.redis_url.get_secret_value(),
            "SLUICE_TOPIC_PREFIX": self.settings.topic_prefix,
            "SLUICE_PROVIDERS_FILE": str(self.folder / "providers.toml"),
            "SLUICE_WORKER__LEASE_SECONDS": str(LEASE_SECONDS),
            "SLUICE_WORKER__SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
            **self.options,
        }

    def spawn(self, *arguments: str) -> RoleProcess:
        name = f"{'-'.join(arguments)}-{len(self.roles)}.log"
        role = RoleProcess(*arguments, environment=self.environment, log_path=self.folder / name)
        self.roles.append(role)
        return role

    async def start(self, *arguments: str) -> RoleProcess:
        role = self.spawn(*arguments)
        await role.ready()
        return role

    async def send(self, requests: Sequence[LLMRequest]) -> None:
        await self.send_raw([(request.request_id.encode(), _codec.encode(request)) for request in requests])

    async def send_raw(self, records: Sequence[tuple[bytes | None, bytes]]) -> None:
        async with Producer(client_options(self.settings)) as producer:
            await producer.send_all(
                [
                    Outgoing(
                        topic=self.settings.topics.requests,
                        key=key,
                        value=value,
                        headers=cloud_event(type="test", source="/test", key=(key or b"").decode(errors="replace")),
                    )
                    for key, value in records
                ]
            )

    async def command(self, command: Command) -> None:
        """Writes a command."""
        topic, key = self.settings.topics.commands, command.command_id
        async with Producer(client_options(self.settings)) as producer:
            headers = cloud_event(type="sluice.Command", source="/test", key=key)
            await producer.send(Outgoing(topic=topic, key=key.encode(), value=_codec.encode(command), headers=headers))

    async def outcome(self) -> "Outcome":
        """Everything that is in the topics now."""
        topics = self.settings.topics
        names = [topics.results, topics.status, topics.attempts, topics.dead_letters, topics.deltas]
        async with TopicReader(client_options(self.settings), names, start="beginning") as reader:
            by_topic: dict[str, list[ConsumerRecord]] = defaultdict(list)
            for record in await reader.rest():
                by_topic[record.topic].append(record)
        return Outcome(
            results=[(_ce_id(r), decode_single_object(LLMResult, r.value)) for r in by_topic[topics.results]],
            events=[(_ce_id(r), decode_single_object(StatusEvent, r.value)) for r in by_topic[topics.status]],
            attempts=[(_ce_id(r), decode_single_object(Attempt, r.value)) for r in by_topic[topics.attempts]],
            dead_letters=by_topic[topics.dead_letters],
            calls=self.calls(),
        )

    async def ended(self, request_ids: Sequence[str], *, timeout_seconds: float = 60) -> "Outcome":
        """Waits until each request has a result and a terminal event, and reads everything then."""
        topics = self.settings.topics
        missing = {(kind, request_id) for request_id in request_ids for kind in ("result", "event")}
        options = client_options(self.settings)
        async with (
            asyncio.timeout(timeout_seconds),
            TopicReader(options, [topics.results, topics.status], start="beginning") as reader,
        ):
            while missing:
                for record in await reader.some(timeout_ms=500):
                    if record.topic == topics.results:
                        missing.discard(("result", record.key.decode()))
                    elif decode_single_object(StatusEvent, record.value).state.is_terminal:
                        missing.discard(("event", record.key.decode()))
        return await self.outcome()

    async def called(self, times: int) -> None:
        """Waits until the provider has been called this often in all."""
        seen, position = 0, 0
        while seen < times:
            await asyncio.sleep(0.02)
            if self.journal_path.exists():
                with self.journal_path.open("rb") as journal:
                    journal.seek(position)
                    lines = journal.read()
                position += len(lines)
                seen += lines.count(b'"start"')

    def calls(self) -> list[dict[str, object]]:
        """The provider's own account of who called it."""
        if not self.journal_path.exists():
            return []
        return read_journal(self.journal_path)


@dataclass(frozen=True)
class Outcome:
    """What a run left in Kafka, and in the provider's journal."""

    results: list[tuple[str | None, LLMResult]]
    events: list[tuple[str | None, StatusEvent]]
    attempts: list[tuple[str | None, Attempt]]
    dead_letters: list[ConsumerRecord]
    calls: list[dict[str, object]]

    def result(self, request_id: str) -> LLMResult:
        found = {identity: result for identity, result in self.results if result.request_id == request_id}
        assert len(found) == 1, f"{request_id}: {len(found)} different results"
        return next(iter(found.values()))

    def states(self, request_id: str) -> list[str]:
        """The request's states in order of version, repeats left out."""
        events = {event.state_version: event.state for _, event in self.events if event.request_id == request_id}
        return [events[version] for version in sorted(events)]

    def starts(self) -> Counter[str]:
        """Calls that the provider saw begin, by request."""
        return Counter(str(call["request_id"]) for call in self.calls if call["event"] == "start")

    def assert_each_ended_once(self, request_ids: Sequence[str]) -> None:
        """One distinct terminal event and one distinct result each, of the same state."""
        terminal: dict[str, set[str | None]] = defaultdict(set)
        states: dict[str, set[str]] = defaultdict(set)
        for identity, event in self.events:
            if event.state.is_terminal:
                terminal[event.request_id].add(identity)
                states[event.request_id].add(event.state)
        results: dict[str, set[str | None]] = defaultdict(set)
        for identity, result in self.results:
            results[result.request_id].add(identity)
            states[result.request_id].add(result.status)
        lost = [name for name in request_ids if not results[name] or not terminal[name]]
        assert not lost, f"{len(lost)} lost, such as {lost[:5]}"
        for name in request_ids:
            assert len(terminal[name]) == 1, f"{name}: {len(terminal[name])} terminal events"
            assert len(results[name]) == 1, f"{name}: {len(results[name])} results"
            assert len(states[name]) == 1, f"{name}: ended as {states[name]}"

    def assert_extra_calls_are_flagged(self) -> int:
        """Each provider call with no outcome on record is flagged as possibly billed. Returns how many there were."""
        extra = {name: count - made_calls(self.result(name).attempts) for name, count in self.starts().items()}
        extra = {name: count for name, count in extra.items() if count > 0}
        for name, count in extra.items():
            flagged = self.result(name).possibly_billed_calls
            assert flagged >= count, f"{name}: {count} extra calls, {flagged} flagged"
            lost = {
                attempt.attempt
                for _, attempt in self.attempts
                if attempt.request_id == name and attempt.possibly_billed
            }
            assert len(lost) >= count, f"{name}: {count} extra calls, attempt records of {len(lost)}"
        return sum(extra.values())


@asynccontextmanager
async def running_system(
    settings: Settings,
    folder: Path,
    *,
    provider_options: str = "latency_ms = 20",
    concurrency: int = 32,
    options: Mapping[str, str] | None = None,
    provider_rules: str = "",
    second_provider: bool = False,
) -> AsyncIterator[System]:
    """Creates topics and a catalogue; stops every role in the end.

    `provider_rules` are further tables of the provider; with `second_provider` there is one more, of the name spare.
    """
    system = System(settings=settings, folder=folder, options=options or {})
    (folder / "providers.toml").write_text(
        f'[providers.simulated]\ntype = "simulated"\nmodels = ["reading-ease-1"]\nlocal = true\n'
        f'concurrency = {concurrency}\n[providers.simulated.options]\njournal_path = "{system.journal_path}"\n'
        f"{provider_options}\n{provider_rules}\n"
        + (SPARE.format(journal_path=system.journal_path) if second_provider else "")
    )
    await create_topics(settings, settings.topics.specs(["simulated", *(["spare"] if second_provider else [])]))
    try:
        yield system
    finally:
        for role in system.roles:
            if role.process.poll() is None:
                await role.stop(timeout_seconds=15)


def _ce_id(record: ConsumerRecord) -> str | None:
    return header(record.headers, "ce_id")
