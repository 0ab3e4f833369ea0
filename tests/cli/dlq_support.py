"""Dead letters on a real Kafka, written as the pipeline writes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from aiokafka import ConsumerRecord

from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader
from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from policy.failures import problem
from schemas.codec import SingleObjectCodec
from schemas.dead_letter_headers import dead_letter_headers, read_dead_letter
from schemas.envelope import Header
from schemas.vocabulary import FailureCategory
from streams.context import Delivery
from streams.records import RecordWriter

BIRTH = datetime(2026, 11, 20, 8, tzinfo=UTC)


@dataclass
class DeadLetterTopics:
    """The topics that `sluice dlq` works on, of one test."""

    settings: Settings

    @property
    def environment(self) -> dict[str, str]:
        return {"KAFKA_BOOTSTRAP": self.settings.kafka_bootstrap, "SLUICE_TOPIC_PREFIX": self.settings.topic_prefix}

    async def create(self) -> None:
        topics = self.settings.topics
        names = {topics.requests, topics.dead_letters, topics.dead_letter_marks}
        await create_topics(self.settings, [spec for spec in topics.specs([]) if spec.name in names])

    def letter(
        self,
        request_id: str | None,
        *,
        key: bytes | None = b"",
        value: bytes | None = b"{}",
        headers: Sequence[Header] = (),
        category: FailureCategory = FailureCategory.OVERLOADED,
        tenant_id: str | None = "default",
        topic: str | None = None,
        offset: int = 7,
        **more: object,
    ) -> Outgoing:
        """As a stage writes it. An empty key: the request id. `more` are fields of `DeadLetter`."""
        delivery = Delivery(
            topic=topic or self.settings.topics.requests,
            partition=0,
            offset=offset,
            timestamp=BIRTH,
            key=(request_id or "").encode() if key == b"" else key,
            value=value or b"",
            headers=tuple(headers),
            is_null=value is None,
        )
        writer = RecordWriter(SingleObjectCodec(), self.settings.topics, "/test")
        written = writer.dead_letter(
            delivery,
            problem(category=category, message="it was full", remedy="wait"),
            request_id=request_id,
            tenant_id=tenant_id,
        )
        described = read_dead_letter(written.headers, size_bytes=0).model_copy(update=more)
        return replace(written, headers=dead_letter_headers(described, delivery.headers))

    async def write(self, *records: Outgoing) -> None:
        """One after the other, so that their order is known."""
        async with Producer(client_options(self.settings)) as producer:
            for record in records:
                await producer.send(record)

    async def write_many(self, count: int) -> list[str]:
        names = [f"r-{number}" for number in range(count)]
        async with Producer(client_options(self.settings)) as producer:
            await producer.send_all([self.letter(name, offset=number) for number, name in enumerate(names)])
        return names

    async def requests(self) -> list[ConsumerRecord]:
        return await self.records(self.settings.topics.requests)

    async def records(self, topic: str) -> list[ConsumerRecord]:
        async with TopicReader(client_options(self.settings), [topic], start="beginning") as reader:
            return await reader.rest()
