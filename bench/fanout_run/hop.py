"""The listener of the raw Kafka hop: a plain consumer of one topic. Arguments: bootstrap address and topic."""

import asyncio
import sys
import time
from typing import Any

from bench.fanout_run.child import answer_questions
from bench.fanout_run.ears import Ears
from connectors.kafka.client import client_options
from connectors.kafka.reader import TopicReader
from connectors.settings import Settings


async def main(kafka_bootstrap: str, topic: str) -> None:
    """Reads until its input ends."""
    ears = Ears()
    async with TopicReader(client_options(Settings(kafka_bootstrap=kafka_bootstrap)), [topic]) as reader:

        async def read() -> None:
            while True:
                records = await reader.some(timeout_ms=1000)
                now = time.monotonic()
                for record in records:
                    ears.hear(record.value, now)

        async def answer(question: dict[str, Any]) -> dict[str, Any]:
            if question["ask"] == "heard":
                return {"microseconds": await ears.heard(question["deliveries"])}
            ears.listen()
            return {}

        reading = asyncio.create_task(read())
        await answer_questions(answer)
        reading.cancel()
        await asyncio.wait([reading])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
