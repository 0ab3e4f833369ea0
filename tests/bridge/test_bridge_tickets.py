"""Tickets: who a client is, by a JWT; and connections that need one."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from bridge_support import Clock, HubOptions, Listener, closing, connected, make_hub, serving, status_event
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from connectors.settings import BridgeSettings, TicketSettings
from websocket_bridge.access import PublicAddressError
from websocket_bridge.bridge import tickets_of
from websocket_bridge.closing import Close
from websocket_bridge.messages import SUBPROTOCOL, Scope
from websocket_bridge.server import BridgeServer
from websocket_bridge.tickets import (
    SHORTEST_FETCH_GAP_SECONDS,
    KeySet,
    TicketError,
    Tickets,
    TicketsUnavailableError,
    key_set_of_file,
)
from websocket_bridge.viewer import Viewer

SECRET = "a-secret-of-at-least-thirty-two-bytes"  # noqa: S105 - of this test alone
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def claims(**changed: Any) -> dict[str, Any]:
    fields = {"exp": time.time() + 600, "scope": "user", "sub": "mira", "tenant_id": "press"} | changed
    return {name: value for name, value in fields.items() if value is not None}


def ticket(key: str = SECRET, **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm="HS256")


def key_set(*key_ids: str) -> dict[str, Any]:
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key()))
    return {"keys": [public | {"kid": key_id, "use": "sig", "alg": "RS256"} for key_id in key_ids]}


def by_secret(**options: Any) -> Tickets:
    return Tickets(secret=SecretStr(SECRET), **options)


async def test_a_good_ticket_says_user_tenant_and_scope() -> None:
    """The widest of the scopes that are among its words counts."""
    viewer = await by_secret().verify(ticket(scope="email tenant user"))
    assert (viewer.scope, viewer.user_id, viewer.tenant_id) == (Scope.TENANT, "mira", "press")
    operator = await by_secret().verify(ticket(scope="operator", sub=None, tenant_id=None))
    assert operator.scope is Scope.OPERATOR


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (ticket(exp=time.time() - 60), "has expired"),
        (ticket(exp=None), "the claim exp is missing"),
        (ticket(exp=time.time() + 7200), "longer than"),
        (ticket(scope=None), "the claim scope is missing"),
        (ticket(scope="email"), "none of"),
        (ticket(sub=None), "the claim sub is missing"),
        (ticket(tenant_id=None, scope="tenant"), "the claim tenant_id is missing"),
        (ticket(sub="no {such} id"), "the claim sub is missing or not valid"),
        (ticket("another-secret-of-thirty-two-bytes-"), "signature"),
        (jwt.encode(claims(), None, algorithm="none"), "algorithm"),
        (jwt.encode(claims(), RSA_KEY, algorithm="RS256", headers={"kid": "k1"}), "algorithm"),
        ("nonsense", "no valid JWT"),
    ],
)
async def test_a_bad_ticket_is_refused_with_its_reason(made: str, reason: str) -> None:
    """Expired, unsigned, signed by others, for too long, or without what it needs."""
    with pytest.raises(TicketError, match=reason) as refused:
        await by_secret().verify(made)
    assert made not in refused.value.reason


async def test_issuer_and_audience_are_checked_where_they_are_set() -> None:
    """Both of them, and only then."""
    strict = by_secret(issuer="https://id.example", audience="sluice")
    assert (await strict.verify(ticket(iss="https://id.example", aud="sluice"))).user_id == "mira"
    for wrong in ({"iss": "https://id.example"}, {"aud": "sluice"}, {"iss": "other", "aud": "sluice"}):
        with pytest.raises(TicketError):
            await strict.verify(ticket(**wrong))
    assert (await by_secret().verify(ticket(iss="anybody"))).user_id == "mira"


async def test_a_public_key_is_not_taken_for_a_secret(tmp_path: Path) -> None:
    """RS256 by the key set's key; HS256 made with that public key as its secret is refused (RFC 8725, 2.1)."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(key_set("k1")))
    tickets = Tickets(keys=KeySet(key_set_of_file(path)))
    good = jwt.encode(claims(), RSA_KEY, algorithm="RS256", headers={"kid": "k1"})
    assert (await tickets.verify(good)).user_id == "mira"
    for header in ({"kid": "k1"}, {}):
        with pytest.raises(TicketError, match="algorithm"):
            await tickets.verify(jwt.encode(claims(), SECRET, algorithm="HS256", headers=header))
    with pytest.raises(TicketError, match="names no key"):
        await tickets.verify(jwt.encode(claims(), RSA_KEY, algorithm="RS256"))


async def test_new_keys_are_fetched_and_made_up_ones_cost_nothing() -> None:
    """An unknown key id has the set fetched again; not more often than every half minute, however many come."""
    clock, fetches, known = Clock(), [], ["old"]

    async def fetch() -> dict[str, Any]:
        fetches.append(clock.seconds)
        return key_set(*known)

    keys = KeySet(fetch, clock=clock)
    assert await keys.key("old")
    for number in range(100):
        with pytest.raises(TicketError):
            await keys.key(f"made-up-{number}")
    assert len(fetches) == 1
    known.append("new")
    clock.seconds += SHORTEST_FETCH_GAP_SECONDS
    assert await keys.key("new")
    assert len(fetches) == 2


async def test_an_unreachable_key_set_refuses_and_keeps_what_was_known() -> None:
    """Trouble with the identity provider is no reason to let anybody in, nor to forget good keys."""
    clock, works = Clock(), [True]

    async def fetch() -> dict[str, Any]:
        if not works[0]:
            raise OSError("away")
        return key_set("k1")

    keys = KeySet(fetch, clock=clock)
    assert await keys.key("k1")
    works[0] = False
    clock.seconds += SHORTEST_FETCH_GAP_SECONDS
    with pytest.raises(TicketsUnavailableError):
        await keys.key("k2")
    assert await keys.key("k1")


@given(st.text(max_size=300))
def test_no_text_makes_a_ticket_of_it(text: str) -> None:
    """Whatever is sent, the answer is a reason."""
    with pytest.raises(TicketError):
        asyncio.run(by_secret().verify(text))


def test_settings_of_tickets_are_checked() -> None:
    """A secret that could be guessed, and two sources of keys, are errors; no key at all means no tickets."""
    with pytest.raises(ValidationError, match="32 bytes"):
        TicketSettings(hs256_key=SecretStr("short"))
    with pytest.raises(ValidationError, match="set one of them"):
        TicketSettings(jwks_url="https://id.example/keys", jwks_file=Path("keys.json"))
    assert tickets_of(BridgeSettings().tickets) is None
    assert tickets_of(TicketSettings(hs256_key=SecretStr(SECRET))) is not None


async def test_a_connection_authenticates_in_its_first_command_and_sees_its_own() -> None:
    """Nothing before; then what the ticket allows, and nothing else."""
    hub, metrics, _ = make_hub(asks_for_tickets=True)
    async with serving(hub, metrics, tickets=by_secret()) as server, connected(server) as client:
        assert (await client.push("hello"))["viewer"] is None
        assert (await client.command("subscribe", request_ids=["a"]))["code"] == "unauthenticated"
        assert (await client.command("authenticate", ticket="nonsense"))["code"] == "bad_ticket"
        answer = await client.command("authenticate", ticket=ticket())
        assert (answer["type"], answer["viewer"]["scope"]) == ("authenticated", "user")
        assert (await client.command("subscribe", all=True))["code"] == "forbidden"
        await client.command("subscribe", request_ids=["mine", "others"])
        hub.on_status(status_event("others", user_id="noor", tenant_id="press"))
        hub.on_status(status_event("mine", user_id="mira", tenant_id="press"))
        assert (await client.push("status"))["event"]["request_id"] == "mine"


async def test_a_ticket_may_come_with_the_handshake_and_never_comes_back() -> None:
    """As a second subprotocol: the bridge answers with its own alone; a bad one gets 401."""
    hub, metrics, _ = make_hub(asks_for_tickets=True)
    async with serving(hub, metrics, tickets=by_secret()) as server:
        url = f"ws://127.0.0.1:{server.port}/ws"
        offered = [SUBPROTOCOL, f"sluice.ticket.{ticket()}"]
        async with connect(url, subprotocols=offered, proxy=None) as connection:
            assert connection.subprotocol == SUBPROTOCOL
            assert json.loads(await connection.recv())["viewer"]["user_id"] == "mira"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, subprotocols=[SUBPROTOCOL, "sluice.ticket.nonsense"], proxy=None)
        assert refused.value.response.status_code == 401


def test_with_keys_the_bridge_may_serve_other_addresses() -> None:
    """It knows who its clients are: no further setting is needed."""
    hub, metrics, _ = make_hub(asks_for_tickets=True)
    with pytest.raises(PublicAddressError):
        BridgeServer(hub, metrics, host="192.0.2.1", port=0, allowed_origins=[])
    BridgeServer(hub, metrics, host="192.0.2.1", port=0, allowed_origins=[], tickets=by_secret())


async def test_a_flood_of_bad_tickets_ends_the_connection() -> None:
    """Guessing is refused as other nonsense is."""
    hub, metrics, _ = make_hub(asks_for_tickets=True)
    async with serving(hub, metrics, tickets=by_secret()) as server, connected(server) as client:
        for number in range(30):
            await client.connection.send(json.dumps({"id": number, "type": "authenticate", "ticket": f"x{number}"}))
        assert (await closing(client.connection))[0] == Close.INVALID_COMMANDS.code


def test_time_ends_what_is_not_authenticated_idle_or_expired() -> None:
    """Without a ticket 4401, without a subscription 4408, with an expired ticket 4501; a refresh goes on."""
    clock = Clock()
    options = HubOptions(more={"authenticate_seconds": 10, "idle_seconds": 100})
    hub, _, _ = make_hub(options, asks_for_tickets=True, clock=clock)

    def viewer(seconds: float) -> Viewer:
        expires_at = Clock(clock.seconds + seconds).now()
        return Viewer(scope=Scope.USER, user_id="mira", tenant_id="press", expires_at=expires_at)

    silent, idle, expiring, refreshed = Listener(hub), *(Listener(hub, viewer=viewer(150)) for _ in range(3))
    for listener in (expiring, refreshed):
        listener.command("subscribe", request_ids=["a"])
    closed: dict[str, float] = {}
    everybody = {"silent": silent, "idle": idle, "expiring": expiring, "refreshed": refreshed}
    for _ in range(200):
        clock.seconds += 1
        if clock.seconds == 1_100:
            asked = hub.receive(refreshed.client, '{"id": 9, "type": "refresh", "ticket": "t"}')
            assert asked is not None
            hub.admit(refreshed.client, asked, viewer(150))
        hub.sweep()
        for name, listener in everybody.items():
            listener.read()
            if listener.closed_with is not None:
                closed.setdefault(f"{name} {listener.closed_with.code}", clock.seconds - 1_000)
    assert closed == {"silent 4401": 11, "idle 4408": 101, "expiring 4501": 150}


def test_a_refresh_is_of_the_same_user_tenant_and_scope() -> None:
    """Another one's ticket is refused, and the connection stays who it was."""
    hub, _, _ = make_hub(asks_for_tickets=True)
    mira = Viewer(scope=Scope.USER, user_id="mira", tenant_id="press")
    listener = Listener(hub, viewer=mira)
    for other in (
        Viewer(scope=Scope.USER, user_id="noor", tenant_id="press"),
        Viewer(scope=Scope.OPERATOR, user_id="mira", tenant_id="press"),
    ):
        asked = hub.receive(listener.client, '{"id": 9, "type": "refresh", "ticket": "t"}')
        assert asked is not None
        hub.admit(listener.client, asked, other)
        assert listener.read()[-1]["code"] == "bad_ticket"
        assert listener.client.session.viewer == mira


def test_connections_of_one_user_and_of_one_address_are_bounded() -> None:
    """The next one is refused with 4429 until one leaves; others are not concerned."""
    limits = {"max_connections_per_user": 2, "max_connections_per_address": 3}
    hub, _, _ = make_hub(HubOptions(more=limits), asks_for_tickets=True)
    mira = Viewer(scope=Scope.USER, user_id="mira", tenant_id="press")
    noor = Viewer(scope=Scope.USER, user_id="noor", tenant_id="press")
    first = Listener(hub, viewer=mira, address="10.0.0.1")
    Listener(hub, viewer=mira, address="10.0.0.1")
    assert hub.roster.refusal(address="10.0.0.2", viewer=mira) is Close.TOO_MANY_OF_ONE
    assert hub.roster.refusal(address="10.0.0.1", viewer=noor) is None
    late = Listener(hub, address="10.0.0.1")
    assert hub.roster.refusal(address="10.0.0.1", viewer=noor) is Close.TOO_MANY_OF_ONE
    asked = hub.receive(late.client, '{"id": 9, "type": "authenticate", "ticket": "t"}')
    assert asked is not None
    hub.admit(late.client, asked, mira)
    late.read()
    assert late.closed_with is Close.TOO_MANY_OF_ONE
    hub.leave(late.client)
    hub.leave(first.client)
    assert hub.roster.refusal(address="10.0.0.1", viewer=mira) is None
