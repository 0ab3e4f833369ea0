"""Sends one request: python_producer.py REQUEST_ID QUESTION. Knows nothing of Sluice but the committed Avro schema."""

import asyncio
import io
import json
import os
import sys
from pathlib import Path

import fastavro
from aiokafka import AIOKafkaProducer
from fastavro.schema import fingerprint, to_parsing_canonical_form

SCHEMA = json.loads((Path(__file__).parents[1] / "schemas/avro/LLMRequest.avsc").read_text())
# Single-object encoding: C3 01, the schema's fingerprint (8 bytes, little-endian, as fastavro gives it), the Avro body.
HEADER = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))
TOPIC = os.environ.get("SLUICE_TOPIC_PREFIX", "") + "llm.requests"


async def main(request_id: str, question: str) -> None:
    """Returns when Kafka has the request."""
    request = {"request_id": request_id, "messages": [{"role": "user", "content": question}]}
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(SCHEMA), request)
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ.get("KAFKA_BOOTSTRAP", "127.0.0.1:9092"), acks="all", enable_idempotence=True
    )
    async with producer:
        await producer.send_and_wait(TOPIC, HEADER + body.getvalue(), key=request_id.encode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
