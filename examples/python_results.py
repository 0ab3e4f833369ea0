"""Prints results, each once, until one has come: python_results.py REQUEST_ID. Needs only the committed schema."""

import asyncio
import io
import json
import os
import sys
from pathlib import Path

import fastavro
from aiokafka import AIOKafkaConsumer
from fastavro.schema import fingerprint, to_parsing_canonical_form

SCHEMA = json.loads((Path(__file__).parents[1] / "schemas/avro/LLMResult.avsc").read_text())
HEADER = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))
TOPIC = os.environ.get("SLUICE_TOPIC_PREFIX", "") + "llm.results"


async def main(awaited_id: str) -> None:
    """Commits what it has dealt with, so that the next start goes on from there."""
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=os.environ.get("KAFKA_BOOTSTRAP", "127.0.0.1:9092"),
        group_id=os.environ.get("SLUICE_TOPIC_PREFIX", "") + "results-example",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    seen = set()  # keep the ids where the results go (a unique column, say): a set forgets them at the next start
    async with consumer:
        async for record in consumer:
            ce_id = dict(record.headers)["ce_id"]
            if ce_id not in seen:
                seen.add(ce_id)
                result = decode(record.value)
                print(result["request_id"], result["status"], result["answer"] or result["problem"], flush=True)
            await consumer.commit()
            if record.key == awaited_id.encode():
                return


def decode(value: bytes) -> dict:
    """A result written with this very schema; a reader for years to come keeps the schemas of earlier releases too."""
    if value[:10] != HEADER:
        raise ValueError(f"written with another schema: {value[:10].hex(' ')}")
    return fastavro.schemaless_reader(io.BytesIO(value[10:]), fastavro.parse_schema(SCHEMA), None)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
