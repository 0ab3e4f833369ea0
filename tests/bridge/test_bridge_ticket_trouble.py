"""Tickets that run out while something streams, and keys that cannot be fetched."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt
import pytest
from bridge_support import (
    Clock,
    Kafka,
    ShiftedClock,
    WireClient,
    closing,
    connected,
    delta,
    make_hub,
    serving,
    status_event,
)
from cryptography.hazmat.primitives.asymmetric import rsa
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from schemas.vocabulary import State
from websocket_bridge import tickets as tickets_module
from websocket_bridge.closing import Close
from websocket_bridge.hub import Hub
from websocket_bridge.messages import SUBPROTOCOL
from websocket_bridge.resuming import DELTAS, STATUS
from websocket_bridge.tickets import (
    FAILED_FETCH_GAP_SECONDS,
    KEYS_FRESH_SECONDS,
    SHORTEST_FETCH_GAP_SECONDS,
    KeySet,
    TicketError,
    Tickets,
    TicketsUnavailableError,
    key_set_of_url,
)

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def ticket(seconds: float = 600, *, key_id: str = "k1") -> str:
    claims = {"exp": time.time() + seconds, "scope": "user", "sub": "mira", "tenant_id": "press"}
    return jwt.encode(claims, RSA_KEY, algorithm="RS256", headers={"kid": key_id})


def key_set(*key_ids: str) -> bytes:
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key()))
    keys = [public | {"kid": key_id, "use": "sig", "alg": "RS256"} for key_id in key_ids]
    return json.dumps({"keys": keys}).encode()


@dataclass
class IdentityProvider:
    """Serves a key set as a test has it: a status and a body, or nothing at all for ever."""

    body: bytes = key_set("k1")
    status: str = "200 OK"
    hangs: bool = False
    fetches: int = 0
    port: int = 0
    server: asyncio.Server | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.fetches += 1
        if self.hangs:
            await reader.read()
        else:
            head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + self.body)
        writer.close()


@asynccontextmanager
async def provided() -> AsyncIterator[IdentityProvider]:
    provider = IdentityProvider()
    await provider.start()
    try:
        yield provider
    finally:
        await provider.stop()


async def test_while_the_key_set_is_away_clients_are_told_to_try_again_and_known_keys_go_on() -> None:
    """No client is sent away for good by it, in whichever way its ticket comes; back, it is asked again at once."""
    clock = Clock()
    hub, metrics, _ = make_hub(asks_for_tickets=True)
    async with provided() as provider:
        await provider.stop()
        tickets = Tickets(keys=KeySet(key_set_of_url(provider.url), clock=clock))
        async with serving(hub, metrics, tickets=tickets) as server, connected(server) as client:
            for _ in range(30):
                answer = await client.command("authenticate", ticket=ticket())
                assert answer["code"] == "tickets_unavailable"
            with pytest.raises(InvalidStatus) as refused:
                await connect(
                    f"ws://127.0.0.1:{server.port}/ws",
                    subprotocols=[SUBPROTOCOL, f"sluice.ticket.{ticket()}"],
                    proxy=None,
                )
            assert refused.value.response.status_code == 503
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ticket()}"}) as session:
                response = await session.get(f"{server.url}events?request_ids=a")
                assert response.status == 503

            await provider.start()
            clock.seconds += FAILED_FETCH_GAP_SECONDS
            assert (await client.command("authenticate", ticket=ticket()))["type"] == "authenticated"
            await provider.stop()
            clock.seconds += 10 * KEYS_FRESH_SECONDS
            async with connected(server) as other:
                assert (await other.command("authenticate", ticket=ticket()))["type"] == "authenticated"
                answer = await other.command("refresh", ticket=ticket(key_id="k2"))
                assert answer["code"] == "tickets_unavailable"


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": "500 Internal Server Error"},
        {"status": "302 Found"},
        {"body": b"<html>down for maintenance</html>"},
        {"body": b"[]"},
        {"body": b'{"keys": "none"}'},
        {"body": b'{"keys": []}'},
        {"body": b'{"keys": [' + b" " * tickets_module.MAX_KEY_SET_BYTES + b"]}"},
        {"hangs": True},
    ],
    ids=lambda trouble: str(trouble)[:40],
)
async def test_whatever_the_endpoint_answers_instead_of_keys_is_an_outage(
    trouble: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded in time and bytes; what was known before goes on to count."""
    monkeypatch.setattr(tickets_module, "FETCH_TIMEOUT_SECONDS", 0.3)
    clock = Clock()
    async with provided() as provider:
        keys = KeySet(key_set_of_url(provider.url), clock=clock)
        assert await keys.key("k1")
        for name, value in trouble.items():
            setattr(provider, name, value)
        clock.seconds += KEYS_FRESH_SECONDS
        assert await keys.key("k1")
        assert provider.fetches == 2
        with pytest.raises(TicketsUnavailableError):
            await keys.key("k2")


async def test_a_key_that_was_withdrawn_does_not_count_for_ever() -> None:
    """Its set is fetched again now and then, also where no unknown key turns up; and no more often than that."""
    clock = Clock()
    async with provided() as provider:
        keys = KeySet(key_set_of_url(provider.url), clock=clock)
        for _ in range(100):
            assert await keys.key("k1")
            clock.seconds += (KEYS_FRESH_SECONDS - 1) / 100
        assert provider.fetches == 1
        provider.body = key_set("k2")
        clock.seconds += 1
        with pytest.raises(TicketError, match="not in the key set"):
            await keys.key("k1")
        assert await keys.key("k2")
        clock.seconds += SHORTEST_FETCH_GAP_SECONDS - 1
        with pytest.raises(TicketError, match="not in the key set"):
            await keys.key("k3")
        assert provider.fetches == 2


def say(hub: Hub, kafka: Kafka, *seqs: int) -> None:
    for seq in seqs:
        hub.on_delta(delta("essay", seq, f"{seq} ").model_copy(update={"tenant_id": "press"}), kafka.spot(DELTAS))
    hub.flush()


async def pieces(client: WireClient, count: int) -> str:
    return "".join([(await client.push("delta"))["text"] for _ in range(count)])


async def test_a_stream_outlives_its_ticket_by_a_refresh_and_resumes_with_a_new_one_where_none_came() -> None:
    """A refresh goes on without a break. Without it the end comes with its code, and nothing is missed after it."""
    clock, kafka = ShiftedClock(), Kafka()
    hub, metrics, _ = make_hub(asks_for_tickets=True, clock=clock)
    kafka.begin(hub)
    mine = {"user_id": "mira", "tenant_id": "press"}
    hub.on_status(status_event("essay", State.PROCESSING, 2, attempt=1, **mine), kafka.spot(STATUS))
    wanted = {"request_ids": ["essay"], "deltas": True}
    async with provided() as provider:
        tickets = Tickets(keys=KeySet(key_set_of_url(provider.url)))
        async with serving(hub, metrics, tickets=tickets) as server:
            async with connected(server) as one, connected(server) as other:
                for client in (one, other):
                    await client.command("authenticate", ticket=ticket(60))
                    await client.command("subscribe", **wanted)
                say(hub, kafka, 0, 1)
                assert [await pieces(client, 2) for client in (one, other)] == ["0 1 ", "0 1 "]
                refreshed = await one.command("refresh", ticket=ticket(600))
                assert refreshed["type"] == "refreshed"
                say(hub, kafka, 2)
                last = await other.push("delta")
                clock.seconds += 61
                hub.sweep()
                assert await closing(other.connection) == (Close.TICKET_EXPIRED.code, Close.TICKET_EXPIRED.text)
                say(hub, kafka, 3, 4)
                assert await pieces(one, 3) == "2 3 4 "
            async with connected(server) as again:
                await again.command("authenticate", ticket=ticket(600))
                answer = await again.command("resume", token=last["resume"], subscriptions=[wanted])
                assert (answer["recovered"], answer["events"]) == (True, 2)
                say(hub, kafka, 5)
                assert await pieces(again, 3) == "3 4 5 "


async def test_an_expired_ticket_is_refused_to_the_second() -> None:
    """A leeway would let it in, to be closed at once, over and over."""
    hub, metrics, _ = make_hub(asks_for_tickets=True)
    async with provided() as provider:
        tickets = Tickets(keys=KeySet(key_set_of_url(provider.url)))
        async with serving(hub, metrics, tickets=tickets) as server, connected(server) as client:
            answer = await client.command("authenticate", ticket=ticket(-1))
            assert (answer["code"], answer["message"]) == ("bad_ticket", "has expired")
