"""Runs the Lua scripts of `lua/`: one round trip a call, and one for all calls that wait at the same time."""

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import StrEnum, auto
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from connectors.state.base import StateUnavailableError
from connectors.state.connect import Client, disconnect

Argument = str | bytes | int | float
Command = tuple[Argument, ...]

PIPELINE_PAYS_FROM = 4  # calls: measured, a pipeline of fewer takes more processor time than separate calls
MAX_CALLS_PER_PIPELINE = 64

_AWAY = (RedisError, RedisClusterException, OSError)  # asyncio's TimeoutError is an OSError


class ScriptName(StrEnum):
    """A file of `lua/`."""

    BEGIN = auto()
    ADOPT = auto()
    ADMIT = auto()
    REFUSE = auto()
    CLAIM = auto()
    RENEW = auto()
    RELEASE = auto()
    SETTLE = auto()
    RESCHEDULE = auto()
    REQUEUE = auto()
    OVERDUE = auto()
    COUNTED = auto()
    LOOK = auto()
    END = auto()
    CANCEL = auto()
    FORBID = auto()
    CONFIRM = auto()
    OUTSTANDING = auto()
    IS_RESTORED = auto()
    RESTORED = auto()
    SAME_RUN = auto()
    EXCHANGE = auto()


class _WaitingCall:
    """A call on its way to Redis together with others."""

    __slots__ = ("command", "reply")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def is_awaited(self) -> bool:
        """False once its caller was cancelled, or ran out of time."""
        return not self.reply.done()

    def resolve(self, reply: Any) -> None:
        if not self.is_awaited:
            return
        if isinstance(reply, Exception):
            self.reply.set_exception(reply)
        else:
            self.reply.set_result(reply)


class ScriptRunner:
    """Calls scripts by their hash, and loads them where they are not known: after a restart or a failover.

    A call is sent at once as long as few are under way. When more come, they go out together as one pipeline, which
    takes less than half of the processor time of separate calls. A cluster's calls go to several nodes, so each is
    always sent by itself. At most `max_connections` are in use.

    Any call may reach Redis twice (the client repeats it when a connection breaks): the scripts allow for that.
    """

    def __init__(self, client: Client, *, timeout_seconds: float, max_connections: int) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        folder = files("connectors.state") / "lua"
        prelude = (folder / "prelude.lua").read_text()
        self._scripts = {
            name: client.register_script(prelude + (folder / f"{name}.lua").read_text()) for name in ScriptName
        }
        self._connections = asyncio.Semaphore(max_connections)
        self._waiting: deque[_WaitingCall] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._calls_by_themselves = 0
        self._is_crowded = False

    async def run(self, name: ScriptName, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Any:
        """The script's reply. Raises `StateUnavailableError` on any failure, and after the timeout."""
        script = self._scripts[name]
        try:
            async with asyncio.timeout(self._timeout_seconds):
                try:
                    return await self._send(("EVALSHA", script.sha, len(keys), *keys, *arguments))
                except NoScriptError:
                    async with self._connections:
                        return await script(keys, arguments)
        except TimeoutError as error:
            raise StateUnavailableError(name, f"no answer within {self._timeout_seconds} s") from error
        except _AWAY as error:
            raise StateUnavailableError(name, str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Ends the calls that share a pipeline; one sent by itself ends by its timeout."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])
        while self._waiting:
            self._waiting.popleft().resolve(_closed())
        await disconnect(self._client)

    async def _send(self, command: Command) -> Any:
        if isinstance(self._client, RedisCluster):
            # Before it knows the nodes, redis-py 8.1 sends a call to any of them.
            await self._client.initialize()
            return await self._send_single(self._client, command)
        if self._calls_by_themselves < PIPELINE_PAYS_FROM and not self._is_crowded:
            self._calls_by_themselves += 1
            try:
                return await self._send_single(self._client, command)
            finally:
                self._calls_by_themselves -= 1
        self._is_crowded = True
        call = _WaitingCall(command)
        self._waiting.append(call)
        if not self._is_sending():
            self._sender = asyncio.create_task(self._send_waiting(self._client), name="redis-pipeline")
        return await call.reply

    def _is_sending(self) -> bool:
        return self._sender is not None and not self._sender.done()

    async def _send_single(self, client: Client, command: Command) -> Any:
        async with self._connections:
            return await client.execute_command(*command)

    async def _send_waiting(self, client: Redis) -> None:
        calls: list[_WaitingCall] = []
        try:
            while self._waiting:
                size = min(len(self._waiting), MAX_CALLS_PER_PIPELINE)
                calls = [call for call in (self._waiting.popleft() for _ in range(size)) if call.is_awaited]
                for call, reply in zip(calls, await self._round_trip(client, calls), strict=True):
                    call.resolve(reply)
                # Those who went together come back together: the first of them is to wait for the others.
                self._is_crowded = len(calls) >= PIPELINE_PAYS_FROM or bool(self._waiting)
        except asyncio.CancelledError:
            for call in calls:
                call.resolve(_closed())
            raise

    async def _round_trip(self, client: Redis, calls: list[_WaitingCall]) -> list[Any]:
        """The reply to each call, or the exception that stands for it."""
        pipeline = client.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(*call.command)
        try:
            async with asyncio.timeout(self._timeout_seconds), self._connections:
                return await pipeline.execute(raise_on_error=False)
        except _AWAY as error:
            return [error] * len(calls)


def _closed() -> Exception:
    return ConnectionAbortedError("the store was closed")
