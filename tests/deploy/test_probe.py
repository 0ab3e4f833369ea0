"""deploy/probe.py, run as Docker runs it, against the server that every role has."""

import asyncio
import os
import socket
import sys

from prometheus_client import CollectorRegistry

from connectors.ops import OpsServer, Readiness
from connectors.settings import OpsSettings
from tests.deploy.compose import ROOT


async def probe(port: int, path: str, **environment: str) -> tuple[int, str]:
    """The exit code and the output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "deploy" / "probe.py"),
        path,
        env={**os.environ, **environment, "SLUICE_OPS__PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def serve(*, ready: bool) -> OpsServer:
    readiness = Readiness(checks={"member_of_group": lambda: ready})
    server = OpsServer(OpsSettings(), readiness, role="intake", registry=CollectorRegistry())
    await server.start()
    return server


async def test_a_role_that_works_is_well() -> None:
    """Exit code 0 for both questions."""
    server = await serve(ready=True)
    try:
        assert (await probe(server.port, "/readyz"))[0] == 0
        assert (await probe(server.port, "/healthz"))[0] == 0
    finally:
        await server.close()


async def test_a_role_that_waits_lives_and_is_not_ready() -> None:
    """Exit code 1 for /readyz alone, and the output says what it waits for."""
    server = await serve(ready=False)
    try:
        assert (await probe(server.port, "/healthz"))[0] == 0
        code, output = await probe(server.port, "/readyz")
    finally:
        await server.close()
    assert code == 1
    assert "member_of_group" in output


async def test_no_answer_is_not_well() -> None:
    """A port on which nobody listens: exit code 1 and a line, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, output = await probe(port, "/readyz")
    assert code == 1
    assert output.startswith(f"no answer on port {port}: ")
    assert output.count("\n") == 1


async def test_the_proxy_of_the_provider_is_not_asked() -> None:
    """With HTTP_PROXY set, for a lane's calls, the role is still asked itself."""
    server = await serve(ready=True)
    try:
        assert (await probe(server.port, "/readyz", HTTP_PROXY="http://127.0.0.1:1", NO_PROXY=""))[0] == 0
    finally:
        await server.close()
