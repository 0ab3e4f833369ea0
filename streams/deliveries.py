"""Records as plain consumers give them, in the form that stages work with; and requests read again where they lie."""

from datetime import UTC, datetime

from aiokafka import ConsumerRecord

from connectors.kafka.record_fetch import RecordFetcher
from schemas.task import Origin
from streams.context import Delivery


def delivery_of_record(record: ConsumerRecord) -> Delivery:
    """The same record, for a stage."""
    return Delivery(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=moment_of(record.timestamp / 1000),
        key=record.key,
        value=record.value or b"",
        headers=tuple(record.headers),
        is_null=record.value is None,
    )


def moment_of(timestamp_seconds: float) -> datetime:
    """A producer may write any number as its record's timestamp; one that is no date counts as now."""
    try:
        return datetime.fromtimestamp(timestamp_seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.now(UTC)


class KafkaOriginals:
    """Implements `context.OriginalRecords`."""

    def __init__(self, fetcher: RecordFetcher) -> None:
        self._fetcher = fetcher

    async def fetch(self, origin: Origin) -> Delivery | None:
        record = await self._fetcher.fetch(origin.topic, origin.partition, origin.offset)
        return None if record is None else delivery_of_record(record)
