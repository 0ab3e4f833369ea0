"""A real Kafka and a real Redis, from whatever this machine can start them with."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from stack_support import wait_until

from sluice import stack
from sluice.stack import processes
from sluice.stack.ports import LOOPBACK, choose
from sluice.stack.service import Condition
from sluice.stack.state import ServiceName, StateDir

pytestmark = pytest.mark.integration

COMMANDS = """
import typer
from sluice.commands.down import down
from sluice.commands.up import up
app = typer.Typer()
app.command()(up)
app.command()(down)
app()
"""


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory whose servers are stopped after the test; the addresses of others are out of the way."""
    for name in ("KAFKA_BOOTSTRAP", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "an état, with a comma"
    monkeypatch.setenv("SLUICE_STATE_DIR", str(folder))
    yield folder
    stack.stop_all(folder)


def produce(bootstrap: str, topic: str, value: bytes) -> None:
    async def send() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
        finally:
            await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
            await producer.send_and_wait(topic, value)

    asyncio.run(send())


def consume(bootstrap: str, topic: str) -> bytes | None:
    async def receive() -> bytes | None:
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=bootstrap, group_id=f"g-{topic}", auto_offset_reset="earliest"
        )
        async with consumer:
            async with asyncio.timeout(30):
                value: bytes | None = (await consumer.getone()).value
                return value

    return asyncio.run(receive())


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", COMMANDS, *arguments]


@contextmanager
def sluice_up() -> Iterator[tuple["subprocess.Popen[str]", dict[str, object]]]:
    """`sluice up` in the foreground, ready, and what it printed."""
    with subprocess.Popen(command("up", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        line = up.stdout.readline()
        try:
            assert line, up.communicate(timeout=30)[1]
            yield up, json.loads(line)
        finally:
            up.kill()


def recorded(state_dir: Path) -> dict[ServiceName, processes.ProcessRecord]:
    services = StateDir(state_dir).read().services
    return {name: record.process for name, record in services.items() if record.process is not None}


def test_a_record_survives_stop_and_kill_of_the_stack(state_dir: Path) -> None:
    """What was produced and stored is there after a restart on the same data, and after kill -9 of both servers."""
    topic = f"t-{uuid.uuid4().hex}"
    with stack.start(state_dir) as first:
        addresses = first.environment()
        produce(first.kafka_bootstrap, topic, b"kept")
        with redis.Redis.from_url(first.redis_url) as client:
            client.set("kept", "yes")
    assert recorded(state_dir) == {}
    with stack.start(state_dir) as second:
        assert second.environment() == addresses
        assert consume(second.kafka_bootstrap, topic) == b"kept"
        for service in second.services:
            service.kill()
            assert service.condition() is Condition.CRASHED
            service.start()
        with redis.Redis.from_url(second.redis_url, decode_responses=True) as client:
            assert client.get("kept") == "yes"
        produce(second.kafka_bootstrap, f"{topic}-after", b"works")


def test_the_second_start_leaves_the_first_one_running(state_dir: Path) -> None:
    """An attached stack has the same addresses, and its stop stops nothing; so do servers on the loopback alone."""
    with stack.start(state_dir) as first:
        running = recorded(state_dir)
        with stack.start(state_dir) as second:
            assert second.environment() == first.environment()
            assert stack.find_running(state_dir, environ={}).kafka_bootstrap == first.kafka_bootstrap
        assert recorded(state_dir) == running
        assert all(service.condition() is Condition.RUNNING for service in first.services)
        listening = {
            connection.laddr.ip
            for record in running.values()
            for connection in psutil.Process(record.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {LOOPBACK}
    assert stack.find_running(state_dir, environ={}).kafka_bootstrap is None


def test_an_ephemeral_stack_leaves_nothing(state_dir: Path) -> None:
    """Its directory is its own, is used by nobody else, and is gone after stop."""
    with stack.start(ephemeral=True) as running:
        folder = running.state_dir
        assert folder != state_dir
        assert folder.is_dir()
    assert not folder.exists()
    assert not state_dir.exists()


def test_one_address_of_the_users_own_is_enough_to_start_only_the_other(state_dir: Path) -> None:
    """With KAFKA_BOOTSTRAP set only Redis is started, and stopping leaves the user's Kafka alone."""
    with stack.start(ephemeral=True) as theirs:
        environ = {**os.environ, "KAFKA_BOOTSTRAP": theirs.kafka_bootstrap}
        with stack.start(state_dir, environ=environ) as mixed:
            assert mixed.kafka_bootstrap == theirs.kafka_bootstrap
            assert list(recorded(state_dir)) == [ServiceName.REDIS]
        assert theirs.kafka.condition() is Condition.RUNNING


def test_when_one_service_fails_the_other_is_not_left_behind(state_dir: Path) -> None:
    """With a Redis address that does not answer, the Kafka that was being started is stopped again."""
    before = {child.pid for child in psutil.Process().children()}
    environ = {**os.environ, "REDIS_URL": f"redis://{LOOPBACK}:{choose(1)[0]}"}
    with pytest.raises(stack.ExternalUnreachable, match="REDIS_URL"):
        stack.start(state_dir, environ=environ)
    assert recorded(state_dir) == {}
    assert {child.pid for child in psutil.Process().children()} <= before


def test_a_broken_data_folder_is_reported_with_the_broker_s_own_words(state_dir: Path) -> None:
    """When Kafka cannot start, the error names its log file and quotes the reason from it."""
    data = StateDir(state_dir).data_dir(ServiceName.KAFKA) / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=AAAAAAAAAAAAAAAAAAAAAA\n")
    with pytest.raises(stack.StartFailed) as caught:
        stack.start(state_dir)
    assert str(StateDir(state_dir).log_path(ServiceName.KAFKA)) in str(caught.value)
    assert "Stored node id 7" in caught.value.log_tail
    assert recorded(state_dir) == {}


def test_up_stops_what_it_started_and_exits_with_zero(state_dir: Path) -> None:
    """SIGTERM ends `sluice up` and both servers, with exit code 0; Ctrl-C takes the same way."""
    with sluice_up() as (up, _):
        running = recorded(state_dir)
        assert len(running) == 2
        up.send_signal(signal.SIGTERM)
        assert up.wait(timeout=60) == 0
    assert not any(processes.is_alive(record) for record in running.values())


def test_down_ends_an_up_in_another_terminal(state_dir: Path) -> None:
    """After `sluice down` the foreground process notices that its servers were stopped, and exits with 0."""
    with sluice_up() as (up, _):
        subprocess.run(command("down"), check=True, capture_output=True)
        assert up.wait(timeout=60) == 0


def test_up_ends_with_one_when_a_server_crashes(state_dir: Path) -> None:
    """Kill -9 of Kafka is told with its log, the rest is stopped, and the exit code is 1."""
    with sluice_up() as (up, _):
        running = recorded(state_dir)
        os.kill(running[ServiceName.KAFKA].pid, signal.SIGKILL)
        _, told = up.communicate(timeout=60)
        assert up.returncode == 1
        assert "Kafka crashed" in told
        assert str(StateDir(state_dir).log_path(ServiceName.KAFKA)) in told
    assert not any(processes.is_alive(record) for record in running.values())


def test_an_interrupt_during_the_start_leaves_no_server(state_dir: Path) -> None:
    """SIGTERM while Kafka is not ready yet ends `sluice up` with 130 and stops what it had begun."""
    with subprocess.Popen(command("up"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        assert any(line.startswith("Kafka: starting") for line in up.stderr)
        up.send_signal(signal.SIGTERM)
        assert up.wait(timeout=60) == 130
    assert recorded(state_dir) == {}


def test_down_cleans_up_after_kill_nine_of_up(state_dir: Path) -> None:
    """The servers outlive a killed `sluice up`; `sluice down` ends them, says so, and may be repeated."""
    with sluice_up() as (up, _):
        running = recorded(state_dir)
        up.kill()
        up.wait(timeout=60)
    assert all(processes.is_alive(record) for record in running.values())
    told = subprocess.run(command("down"), check=True, capture_output=True, text=True).stdout
    assert "Stopped Kafka and Redis." in told
    wait_until(lambda: not any(processes.is_alive(record) for record in running.values()))
    told = subprocess.run(command("down", "--purge"), check=True, capture_output=True, text=True).stdout
    assert "Nothing was running." in told
    assert "Removed data and logs." in told
    assert not StateDir(state_dir).data_dir(ServiceName.KAFKA).exists()


def test_a_detached_stack_is_taken_over_by_name(state_dir: Path) -> None:
    """`sluice up --detach` returns and leaves it running; another `up` finds it and does not stop it."""
    first = subprocess.run(command("up", "--detach", "--json"), check=True, capture_output=True, text=True)
    told = json.loads(first.stdout)
    with sluice_up() as (up, again):
        assert again["kafka_bootstrap"] == told["kafka_bootstrap"]
        up.send_signal(signal.SIGINT)
        assert up.wait(timeout=60) == 0
    assert len(recorded(state_dir)) == 2
    assert stack.stop_all(state_dir).stopped == ("Kafka", "Redis")
