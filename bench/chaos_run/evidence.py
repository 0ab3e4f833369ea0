"""Reads what a run left behind, as a stranger would: a plain consumer, the committed schemas, the providers' journals.

Neither Sluice's models nor its codecs are used, so that an error in them cannot hide itself.
"""

import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import fastavro
import redis.asyncio
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from fastavro.schema import fingerprint, to_parsing_canonical_form

from bench.chaos_run.logs import Attempt, Call, Event, Logs, Result, Sent

T = TypeVar("T")
_SCHEMAS = Path(__file__).parents[2] / "schemas" / "avro"
_HEADER_BYTES = 10


class Decoder:
    """One record type, in single-object encoding, written with the schema that is committed now."""

    def __init__(self, name: str) -> None:
        schema = json.loads((_SCHEMAS / f"{name}.avsc").read_text())
        self._schema = fastavro.parse_schema(schema)
        self._header = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))

    def decode(self, value: bytes) -> dict[str, Any]:
        if value[:_HEADER_BYTES] != self._header:
            raise ValueError(f"written with another schema: {value[:_HEADER_BYTES].hex(' ')}")
        decoded = fastavro.schemaless_reader(io.BytesIO(value[_HEADER_BYTES:]), self._schema, None)
        if not isinstance(decoded, dict):
            raise TypeError(f"{type(decoded).__name__} is no record")
        return decoded


async def gather_logs(
    bootstrap: str, prefix: str, redis_url: str, sent: Iterable[Sent], journals: Iterable[Path]
) -> Logs:
    """Everything that is there now. The system should have come to rest."""
    names = {word: f"{prefix}llm.{word}" for word in ("status", "results", "attempts", "requests.dlt")}
    by_topic: dict[str, list[ConsumerRecord]] = defaultdict(list)
    for record in await _read_whole(bootstrap, list(names.values())):
        by_topic[record.topic].append(record)

    def read(word: str, schema: str, become: Callable[[ConsumerRecord, dict[str, Any]], T]) -> tuple[T, ...]:
        decoder = Decoder(schema)
        return tuple(become(record, decoder.decode(record.value)) for record in by_topic[names[word]])

    return Logs(
        sent=tuple(sent),
        events=read("status", "StatusEvent", _event),
        results=read("results", "LLMResult", _result),
        attempts=read("attempts", "Attempt", lambda _, fields: _attempt(fields)),
        dead_letters=tuple(_header(record, "sluice_dlt-request-id") for record in by_topic[names["requests.dlt"]]),
        calls=tuple(call for journal in journals for call in read_calls(journal)),
        unread=tuple((await unread(bootstrap, prefix)).items()),
        counted_still=await counted_still(redis_url),
    )


def read_calls(journal: Path) -> list[Call]:
    """The calls of one provider's journal, in the order in which they began."""
    calls: dict[str, Call] = {}
    for line in journal.read_text().splitlines() if journal.exists() else ():
        entry = json.loads(line)
        name = entry["call"]
        if entry["event"] == "begun":
            calls[name] = Call(
                call=name,
                provider=entry["provider"],
                request_id=entry["request"],
                begun=entry["time"],
                status=None,
            )
        else:
            begun = calls[name]
            calls[name] = Call(
                call=name,
                provider=begun.provider,
                request_id=begun.request_id,
                begun=begun.begun,
                ended=entry["time"],
                status=entry["status"],
            )
    return list(calls.values())


async def unread(bootstrap: str, prefix: str) -> dict[str, int]:
    """Records of requests and lanes that a group has read from and not committed, by topic.

    Delay topics are left out: a request that was cancelled there ends at once, and its record waits on.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        groups = [name for name, *_ in await admin.list_consumer_groups() if name.startswith(prefix)]
        committed: dict[TopicPartition, int] = {}
        for group in groups:
            for partition, offset in (await admin.list_consumer_group_offsets(group)).items():
                if partition.topic == f"{prefix}llm.requests" or partition.topic.startswith(f"{prefix}llm.lane."):
                    committed[partition] = max(offset.offset, committed.get(partition, 0))
    finally:
        await admin.close()
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(committed))
    finally:
        await consumer.stop()
    lag: dict[str, int] = defaultdict(int)
    for partition, offset in committed.items():
        lag[partition.topic] += ends[partition] - max(offset, 0)
    return dict(lag)


async def counted_still(redis_url: str) -> int:
    """How many requests the shared state counts as outstanding, in all its shards."""
    client = redis.asyncio.Redis.from_url(redis_url)
    try:
        return sum([int(await client.zcard(key)) async for key in client.scan_iter(match="*:deadlines")])
    finally:
        await client.aclose()


async def _read_whole(bootstrap: str, topics: Sequence[str]) -> list[ConsumerRecord]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=100
    )
    await consumer.start()
    try:
        partitions = await _partitions(bootstrap, topics)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        records: list[ConsumerRecord] = []
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
        return records
    finally:
        await consumer.stop()


async def _partitions(bootstrap: str, topics: Sequence[str]) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        described = await admin.describe_topics(list(topics))
    finally:
        await admin.close()
    return [TopicPartition(topic["topic"], part["partition"]) for topic in described for part in topic["partitions"]]


def _event(record: ConsumerRecord, fields: dict[str, Any]) -> Event:
    return Event(
        request_id=fields["request_id"],
        ce_id=_identity(record),
        state=fields["state"],
        version=fields["state_version"],
        attempt=fields["attempt"],
        possibly_billed_calls=fields["possibly_billed_calls"],
        order=record.offset,
    )


def _result(record: ConsumerRecord, fields: dict[str, Any]) -> Result:
    answer, problem = fields["answer"], fields["problem"]
    return Result(
        request_id=fields["request_id"],
        ce_id=_identity(record),
        status=fields["status"],
        version=fields["state_version"],
        answer=answer and answer["text"],
        category=problem and problem["category"],
        attempts=tuple(_attempt(attempt) for attempt in fields["attempts"]),
        possibly_billed_calls=fields["possibly_billed_calls"],
    )


def _attempt(fields: dict[str, Any]) -> Attempt:
    return Attempt(
        request_id=fields["request_id"],
        number=fields["attempt"],
        outcome=fields["outcome"],
        provider=fields["provider"],
        possibly_billed=fields["possibly_billed"],
        call=fields["provider_request_id"],
        worker=fields["worker"],
    )


def _identity(record: ConsumerRecord) -> str:
    """Its `ce_id`. A record without one is like no other."""
    return _header(record, "ce_id") or f"none, {record.topic}-{record.partition}-{record.offset}"


def _header(record: ConsumerRecord, name: str) -> str | None:
    found: bytes | None = dict(record.headers).get(name)
    return None if found is None else found.decode()
