"""Prints every record of one request, from all topics, texts left out: trail.py REQUEST_ID [HOURS, or 1]."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta

from connectors.kafka.client import client_options
from connectors.kafka.reader import TopicReader
from connectors.providers.catalogue_file import load_catalogue
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from schemas import Attempt, StatusEvent
from schemas.envelope import header

QUIET_MS = 3000
WITHOUT_TEXTS = (Attempt, StatusEvent)


async def main(request_id: str, hours: float) -> None:
    """Reads what was written in the last hours, in the order of Kafka's clock within each batch."""
    settings = Settings()
    providers = list(load_catalogue(settings.providers_file).providers)
    kinds = {spec.name: spec.record for spec in settings.topics.specs(providers)}
    began = datetime.now(UTC)
    reader = TopicReader(client_options(settings), list(kinds), start=began - timedelta(hours=hours))
    async with open_codec(settings, []) as codec, reader:
        while records := await reader.some(timeout_ms=QUIET_MS):
            for record in sorted(records, key=lambda record: record.timestamp):
                if record.key != request_id.encode():
                    continue
                written = datetime.fromtimestamp(record.timestamp / 1000, UTC)
                kind = kinds[record.topic]
                print(f"{written:%H:%M:%S.%f} {record.topic} partition {record.partition} offset {record.offset}")
                print(f"    {header(record.headers, 'ce_type') or 'no ce_type'}, {len(record.value or b''):,} bytes")
                if kind in WITHOUT_TEXTS:
                    print(f"    {(await codec.decode(kind, record.value)).model_dump_json(exclude_none=True)}")
            if all(record.timestamp / 1000 > began.timestamp() for record in records):
                return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 1.0))
