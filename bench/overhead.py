"""What the pipeline itself costs: against the raw Kafka hop, on the same broker, in the same run.

    python -m bench.overhead [--rates 50,200,500] [--seconds 10] [--json]

Three spans of each request, on one host and one clock:

    produce -> call     send() called until the provider is called: two hops, one status write, two Redis calls
    answer -> result    the provider's answer until a reader of llm.results has the result
    whole               send() until the result is read, less the time inside the provider

The floor is one hop of plain aiokafka (acks=all, idempotent, linger 0, 1 KB), at the same rate, just before.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from bench.measuring import CpuMeter, Latency, at_rate, latency_of, listening_pid
from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader
from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from schemas import LLMRequest
from schemas.request import Message
from schemas.topics import HOUR_MS, TopicSpec
from schemas.vocabulary import Role
from sluice import stack
from sluice.client import Client
from sluice.role_process import RoleProcess

PARTITIONS = 3
PAYLOAD = "x" * 1000
WARM_UP = 200
AIM_RATIO = 4.0


async def raw_hop(settings: Settings, rate: float, count: int) -> Latency:
    """One hop of plain aiokafka at this rate."""
    topic = f"{settings.topic_prefix}raw"
    spec = TopicSpec(name=topic, record=None, description="raw hop", retention_ms=HOUR_MS, partitions=PARTITIONS)
    await create_topics(settings, [spec])
    options = client_options(settings)
    sent: dict[int, float] = {}
    took: list[float] = []
    async with Producer(options) as producer, TopicReader(options, [topic]) as reader:

        async def consume() -> None:
            while len(took) < count:
                records = await reader.some(timeout_ms=1000)
                now = time.monotonic()
                took.extend(now - sent[int(record.key)] for record in records)

        async def produce(number: int) -> None:
            sent[number] = time.monotonic()
            await producer.send(Outgoing(topic=topic, key=str(number).encode(), value=PAYLOAD.encode()))

        reading = asyncio.create_task(consume())
        await at_rate(rate, count, produce)
        await asyncio.wait_for(reading, 30)
    return latency_of(took)


async def pipeline(
    settings: Settings, journal_path: Path, pids: dict[str, int], rate: float, count: int
) -> dict[str, Any]:
    """The spans of `count` requests at this rate, and the CPU that each process used for one of them."""
    run = uuid4().hex[:8]
    sent: dict[str, float] = {}
    read: dict[str, float] = {}
    async with AsyncExitStack() as context:
        client = await context.enter_async_context(Client(settings, source="/bench"))
        reader = await context.enter_async_context(TopicReader(client_options(settings), [settings.topics.results]))

        async def consume() -> None:
            while len(read) < count:
                for record in await reader.some(timeout_ms=1000):
                    if record.key.decode() in sent:
                        read.setdefault(record.key.decode(), time.time())

        async def submit(number: int) -> None:
            request_id = f"{run}-{number}"
            message = Message(role=Role.USER, content=PAYLOAD)
            request = LLMRequest(request_id=request_id, messages=[message])
            sent[request_id] = time.time()
            await client.submit(request)

        meter = CpuMeter(pids)
        meter.start()
        reading = asyncio.create_task(consume())
        seconds = await at_rate(rate, count, submit)
        await asyncio.wait_for(reading, 60)
        cpu = meter.stop()
    called, answered = _journal(journal_path, sent)
    return {
        "produce_to_call": latency_of([called[name] - sent[name] for name in sent]),
        "answer_to_result": latency_of([read[name] - answered[name] for name in sent]),
        "whole_overhead": latency_of([read[name] - sent[name] - (answered[name] - called[name]) for name in sent]),
        "requests_per_second": round(count / seconds, 1),
        "cpu_us_per_request": {name: round(value / count * 1e6) for name, value in cpu.items()},
    }


def _journal(path: Path, wanted: dict[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """When the provider was called and when it answered, by its own journal."""
    called: dict[str, float] = {}
    answered: dict[str, float] = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if entry["request_id"] in wanted:
            moment = datetime.fromisoformat(entry["time"]).timestamp()
            (called if entry["event"] == "start" else answered)[entry["request_id"]] = moment
    return called, answered


async def measure(settings: Settings, rates: Sequence[float], seconds: float, folder: Path) -> list[dict[str, Any]]:
    """Starts the roles, warms them up, and measures each rate: the raw hop, then the pipeline."""
    journal = folder / "journal.jsonl"
    providers = folder / "providers.toml"
    providers.write_text(
        '[providers.simulated]\ntype = "simulated"\nmodels = ["reading-ease-1"]\nlocal = true\n'
        f'[providers.simulated.options]\nlatency_ms = 0\njournal_path = "{journal}"\n'
    )
    await create_topics(settings, settings.topics.specs(["simulated"]))
    environment = {
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "SLUICE_TOPIC_PREFIX": settings.topic_prefix,
        "SLUICE_PROVIDERS_FILE": str(providers),
        "SLUICE_LOG__LEVEL": "warning",
    }
    roles = {
        name: RoleProcess(*arguments, environment=environment, log_path=folder / f"{name}.log")
        for name, arguments in (("intake", ("intake",)), ("lane", ("lane", "simulated")))
    }
    try:
        await asyncio.gather(*(role.ready() for role in roles.values()))
        pids = {name: role.pid for name, role in roles.items()}
        for name, address in (("kafka", settings.kafka_bootstrap), ("redis", _redis_address(settings))):
            pid = listening_pid(address)
            if pid is not None:
                pids[name] = pid
        await pipeline(settings, journal, pids, 100, WARM_UP)
        rows = []
        for rate in rates:
            count = max(100, int(rate * seconds))
            raw = await raw_hop(settings, rate, count)
            spans = await pipeline(settings, journal, pids, rate, count)
            ratio = round(spans["produce_to_call"].p50 / raw.p50, 2)
            rows.append({"rate": rate, "raw_hop": raw, **spans, "call_ratio_p50": ratio})
        return rows
    finally:
        await asyncio.gather(*(role.stop() for role in roles.values()))


def _redis_address(settings: Settings) -> str:
    return settings.redis_url.get_secret_value().split("://", 1)[1].split("/", 1)[0].rpartition("@")[2]


def _show(rows: list[dict[str, Any]]) -> None:
    console = Console(width=120)
    table = Table(title="milliseconds, p50 / p95 / p99")
    for column in ("requests/s", "raw hop", "produce -> call", "answer -> result", "whole", "call : raw hop"):
        table.add_column(column, justify="right")
    for row in rows:
        spans = (row["raw_hop"], row["produce_to_call"], row["answer_to_result"], row["whole_overhead"])
        cells = [f"{span.p50:.2f} / {span.p95:.2f} / {span.p99:.2f}" for span in spans]
        table.add_row(f"{row['rate']:g}", *cells, f"{row['call_ratio_p50']:.2f} (aim {AIM_RATIO:g})")
    console.print(table)
    cpu = Table(title="CPU microseconds per request")
    names = list(rows[0]["cpu_us_per_request"])
    for column in ("requests/s", *names):
        cpu.add_column(column, justify="right")
    for row in rows:
        cpu.add_row(f"{row['rate']:g}", *(str(row["cpu_us_per_request"][name]) for name in names))
    console.print(cpu)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="50,200,500", help="requests a second, separated by commas")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    arguments = parser.parse_args()
    rates = [float(rate) for rate in arguments.rates.split(",")]
    progress = Console(stderr=True)
    with stack.start(on_progress=lambda line: progress.print(line, style="dim")) as running:
        settings = Settings(
            kafka_bootstrap=running.kafka_bootstrap,
            redis_url=SecretStr(running.redis_url),
            topic_prefix=f"bench-{uuid4().hex[:8]}.",
            topic_partitions=PARTITIONS,
        )
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
            rows = asyncio.run(measure(settings, rates, arguments.seconds, Path(folder)))
    if arguments.as_json:
        print(json.dumps(rows, default=asdict))
    else:
        _show(rows)


if __name__ == "__main__":
    main()
