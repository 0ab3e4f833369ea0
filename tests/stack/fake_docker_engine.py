"""A Docker engine on a Unix socket that knows what we ask of one, and runs Redis containers as processes.

It stands for a real engine where there is none: docker-py and testcontainers talk to it as they would to Docker,
so what is asserted about a container is what a real engine would have been sent.
"""

import json
import re
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import unquote

from sluice.stack.machine import find_redis_server
from sluice.stack.ports import LOOPBACK

VERSION = "28.0-fake"


@dataclass
class Container:
    """One container: what was asked for, and the process that stands for it."""

    request: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class FakeEngine:
    """The state of the engine, for tests to look at and to prepare."""

    folder: Path
    images: set[str] = field(default_factory=set)
    unpullable: set[str] = field(default_factory=set)
    containers: dict[str, Container] = field(default_factory=dict)
    requested: list[dict[str, Any]] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.folder / "docker.sock"

    @property
    def volumes(self) -> set[str]:
        return {path.name for path in (self.folder / "volumes").glob("*")}

    def handle(self, method: str, path: str, query: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Answer one request of the engine's API, its version prefix removed."""
        match [method, *path.strip("/").split("/")]:
            case ["GET", "version"]:
                return 200, {"ApiVersion": "1.45", "Version": VERSION}
            case ["GET", "images", *name, "json"]:
                return (
                    (200, {"Id": "sha256:1"}) if "/".join(name) in self.images else (404, {"message": "No such image"})
                )
            case ["POST", "images", "create"]:
                return self._pull(query)
            case ["POST", "containers", "create"]:
                container_id = uuid.uuid4().hex
                self.containers[container_id] = Container(body)
                self.requested.append(body)
                return 201, {"Id": container_id}
            case [_, "containers", container_id, *_] if container_id not in self.containers:
                return 404, {"message": "no such container"}
            case [_, "containers", container_id, *action]:
                return self._on_container(method, container_id, action)
            case ["GET", "volumes", name]:
                return (200, {"Name": name}) if name in self.volumes else (404, {"message": "no volume"})
            case ["DELETE", "volumes", name]:
                subprocess.run(["rm", "-r", self.folder / "volumes" / name], check=True)
                return 204, None
        raise AssertionError(f"the fake engine knows no {method} {path}")

    def _pull(self, query: str) -> tuple[int, Any]:
        parameters = dict(part.split("=") for part in unquote(query).split("&"))
        image = f"{parameters['fromImage']}:{parameters['tag']}"
        if image in self.unpullable:
            return 200, {"error": f"manifest for {image} not found"}
        self.images.add(image)
        return 200, {"status": "Download complete"}

    def _on_container(self, method: str, container_id: str, action: list[str]) -> tuple[int, Any]:
        container = self.containers[container_id]
        match [method, *action]:
            case ["GET", "json"]:
                status = "running" if container.running else "exited"
                return 200, {"Id": container_id, "State": {"Status": status}, "Config": {"Tty": True}}
            case ["POST", "start"] if not container.request.get("Cmd"):
                return 500, {"message": "this engine runs Redis only"}
            case ["POST", "start"]:
                container.process = self._run(container.request)
                return 204, None
            case ["POST", "stop"]:
                container.end()
                return 204, None
            case ["GET", "logs"]:
                return 200, b"what the container wrote\n"
            case ["DELETE"]:
                container.end()
                del self.containers[container_id]
                return 204, None
        raise AssertionError(f"the fake engine knows no {method} {action} of a container")

    def _run(self, request: dict[str, Any]) -> subprocess.Popen[bytes]:
        volume = self.folder / "volumes" / request["HostConfig"]["Binds"][0].split(":")[0]
        volume.mkdir(parents=True, exist_ok=True)
        _program, *arguments = request["Cmd"]
        binary = find_redis_server()
        assert binary is not None
        return subprocess.Popen(
            [binary, "--bind", LOOPBACK, *arguments], cwd=volume, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )


@contextmanager
def fake_engine(folder: Path) -> Iterator[FakeEngine]:
    """Serve a fake engine on a socket in `folder`, and end its containers afterwards."""
    engine = FakeEngine(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            path, _, query = self.path.partition("?")
            status, answer = engine.handle(self.command, re.sub(r"^/v[\d.]+", "", path), query, body or {})
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(0 if status == 204 else len(content)))
            self.end_headers()
            if status != 204:
                self.wfile.write(content)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
            """Nothing: the test's output is enough."""

        def address_string(self) -> str:
            return "unix"

    class Server(ThreadingMixIn, UnixStreamServer):
        daemon_threads = True

    with Server(str(engine.socket), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            for container in engine.containers.values():
                container.end()
