"""Sends a dead letter back to the topic of requests: key and value byte for byte, with a header that counts."""

from aiokafka.errors import MessageSizeTooLargeError

from connectors.kafka.producer import Outgoing
from connectors.kafka.record_fetch import RecordFetcher
from schemas.dead_letter_headers import VALUE_LEFT_OUT, redrive_headers
from schemas.envelope import header
from schemas.topics import Topics
from sluice.dlq.handling import RefusedError
from sluice.dlq.mailbox import Found, Mailbox
from sluice.dlq.moments import moment_of


def refusal(found: Found, topics: Topics) -> str | None:
    """Why this letter cannot be redriven, where it can be told without looking elsewhere."""
    topic = found.stored.letter.original_topic
    if not topic:
        return "nothing says where it came from: another program wrote it"
    if topic != topics.requests:
        return f"it came from {topic}, and only what came from {topics.requests} can be redriven"
    if found.record.key is None and found.record.value is None and not value_left_out(found):
        return "it has neither key nor value, and there is nothing to send"
    return None


def value_left_out(found: Found) -> bool:
    """Whether the letter says where the value lies, and does not have it."""
    return header(found.record.headers, VALUE_LEFT_OUT) is not None


class Redriving:
    """`handle` returns when Kafka has the record. Raises `RefusedError`."""

    def __init__(self, mailbox: Mailbox, fetcher: RecordFetcher) -> None:
        self._mailbox = mailbox
        self._fetcher = fetcher

    async def handle(self, found: Found) -> None:
        problem = refusal(found, self._mailbox.topics)
        if problem is not None:
            raise RefusedError(problem)
        try:
            await self._mailbox.send(await self._record(found))
        except MessageSizeTooLargeError:
            raise RefusedError(
                f"it is too large for {self._mailbox.topics.requests}: raise the topic's max.message.bytes"
            ) from None

    async def _record(self, found: Found) -> Outgoing:
        letter, source = found.stored.letter, found.record
        if value_left_out(found):
            where = f"partition {letter.original_partition}, offset {letter.original_offset} of {letter.original_topic}"
            source = await self._fetcher.fetch(letter.original_topic, letter.original_partition, letter.original_offset)
            if source is None:
                raise RefusedError(f"its value was left out, and Kafka no longer has {where}: send the request anew")
            if letter.original_timestamp is not None and moment_of(source.timestamp) != letter.original_timestamp:
                raise RefusedError(f"its value was left out, and another record stands at {where} by now")
            if source.key is None and source.value is None:
                raise RefusedError("it has neither key nor value, and there is nothing to send")
        return Outgoing(
            topic=letter.original_topic,
            key=source.key,
            value=source.value,
            headers=redrive_headers(letter, source.headers),
        )
