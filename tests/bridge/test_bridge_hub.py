"""The hub: who gets what, and that nobody suffers from anybody else."""

import json

from bridge_support import HubOptions, Listener, delta, make_hub, status_event
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.vocabulary import State
from websocket_bridge.closing import Close
from websocket_bridge.frames import STATUSES_PER_SNAPSHOT_FRAME, Push, Status
from websocket_bridge.messages import FeedState
from websocket_bridge.subjects import Subject


def test_each_client_gets_what_it_follows() -> None:
    """By id, by everything, and both at once: each change is told once to those who asked."""
    hub, _, _ = make_hub()
    by_id, everything, both, nothing = (Listener(hub) for _ in range(4))
    by_id.command("subscribe", request_ids=["a"])
    everything.command("subscribe", all=True)
    both.command("subscribe", request_ids=["a"])
    both.command("subscribe", all=True)
    for listener in (by_id, everything, both, nothing):
        listener.read()
    hub.on_status(status_event("a"))
    hub.on_status(status_event("b"))
    told = {
        name: [frame["event"]["request_id"] for frame in listener.read()]
        for name, listener in {"by_id": by_id, "everything": everything, "both": both, "nothing": nothing}.items()
    }
    assert told == {"by_id": ["a"], "everything": ["a", "b"], "both": ["a", "b"], "nothing": []}


def test_a_connection_is_greeted() -> None:
    """The first frame says the protocol, the bridge's clock, its view of Kafka and its limits."""
    hub, _, _ = make_hub(HubOptions(allow_all=False, max_subscriptions=7))
    (hello,) = Listener(hub).read()
    assert (hello["type"], hello["protocol"], hello["feed"]) == ("hello", "sluice.v1", "starting")
    assert (hello["viewer"]["scope"], hello["limits"]["subscriptions"]) == ("ids", 7)


def test_everybody_learns_when_the_bridge_loses_kafka() -> None:
    """A change of the feed is pushed once to each client, subscribed or not."""
    hub, _, _ = make_hub()
    listener = Listener(hub)
    listener.read()
    for feed in (FeedState.LIVE, FeedState.LIVE, FeedState.AWAY):
        hub.on_feed(feed)
    assert [frame["feed"] for frame in listener.read()] == ["live", "away"]


def test_a_large_snapshot_comes_in_frames_of_bounded_size() -> None:
    """All remembered requests, newest first, each once, and only the last frame says so."""
    hub, _, _ = make_hub(HubOptions(remembered_requests=1000))
    for number in range(STATUSES_PER_SNAPSHOT_FRAME * 2 + 1):
        hub.on_status(status_event(f"r{number}"))
    listener = Listener(hub)
    listener.command("subscribe", all=True)
    _, _, *parts = listener.read()
    assert [len(part["requests"]) for part in parts] == [200, 200, 1, 0]
    assert [part["last"] for part in parts] == [False, False, False, True]
    ids = [event["request_id"] for part in parts for event in part["requests"]]
    assert ids == [f"r{number}" for number in reversed(range(401))]


def test_a_slow_client_is_closed_and_others_lose_nothing() -> None:
    """The client that does not read gets the documented code; the one that reads gets every change."""
    hub, _, registry = make_hub(HubOptions(outbox_events=50))
    slow, quick = Listener(hub), Listener(hub)
    for listener in (slow, quick):
        listener.command("subscribe", all=True)
    seen = []
    for number in range(200):
        hub.on_status(status_event(f"r{number}"))
        seen += [frame["event"]["request_id"] for frame in quick.read() if frame["type"] == "status"]
    assert slow.closed_with is Close.SLOW_CLIENT
    assert len(slow.client.outbox) == 0
    assert quick.closed_with is None
    assert seen == [f"r{number}" for number in range(200)]
    assert registry.get_sample_value("sluice_bridge_connections") == 1


def test_a_slow_client_of_few_requests_is_compacted_and_stays() -> None:
    """Many changes of few requests cost a slow client the versions in between, not its connection."""
    hub, _, registry = make_hub(HubOptions(outbox_events=50))
    slow = Listener(hub)
    slow.command("subscribe", request_ids=["a", "b"])
    for version in range(1, 301):
        hub.on_status(status_event("a", State.PROCESSING, version))
        hub.on_status(status_event("b", State.PROCESSING, version))
    newest = {f["event"]["request_id"]: f["event"]["state_version"] for f in slow.read() if f["type"] == "status"}
    assert newest == {"a": 300, "b": 300}
    assert slow.closed_with is None
    assert registry.get_sample_value("sluice_bridge_statuses_compacted_total") > 400


def test_an_event_is_encoded_once_for_all() -> None:
    """A thousand clients share the bytes of one push."""
    hub, _, _ = make_hub()
    listeners = [Listener(hub) for _ in range(100)]
    for listener in listeners:
        listener.command("subscribe", request_ids=["a"])
        listener.read()
    hub.on_status(status_event("a"))
    taken = [listener.client.outbox.take() for listener in listeners]
    frames = {id(frame.wire) for frame in taken if isinstance(frame, Push) and isinstance(frame.body, Status)}
    assert len(frames) == 1


def test_nothing_of_a_client_stays_when_it_leaves() -> None:
    """The index from requests to followers is empty again, and events after it go nowhere."""
    hub, _, registry = make_hub()
    listener = Listener(hub)
    listener.command("subscribe", request_ids=["a", "b"])
    listener.command("subscribe", all=True)
    hub.leave(listener.client)
    hub.on_status(status_event("a"))
    assert listener.read() == []
    assert hub.roster.is_blank
    assert registry.get_sample_value("sluice_bridge_connections") == 0


def test_a_request_that_nobody_follows_any_more_leaves_the_index() -> None:
    """Unsubscribing gives the memory back at once, not only when the client leaves."""
    hub, _, _ = make_hub()
    one, other = Listener(hub), Listener(hub)
    one.command("subscribe", request_ids=["a", "b"])
    other.command("subscribe", request_ids=["b"])
    one.command("unsubscribe", request_ids=["a", "b"])
    assert {subject: set(found) for subject, found in hub.roster._followers.items()} == {
        Subject("request", "b"): {other.client}
    }


def test_deltas_reach_only_those_who_want_them() -> None:
    """Of two followers of one request, the one that asked for deltas gets the text."""
    hub, _, _ = make_hub()
    plain, streaming = Listener(hub), Listener(hub)
    plain.command("subscribe", request_ids=["a"])
    streaming.command("subscribe", request_ids=["a"], deltas=True)
    plain.read(), streaming.read()
    hub.on_delta(delta("a", 0, "Hello"))
    hub.on_delta(delta("a", 0, "Hello"))
    assert plain.read() == []
    assert [frame["text"] for frame in streaming.read()] == ["Hello"]


requests = st.sampled_from("abc")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("event"), requests, st.integers(1, 6)),
        st.tuples(st.just("subscribe"), requests, st.just(0)),
        st.tuples(st.just("unsubscribe"), requests, st.just(0)),
        st.tuples(st.just("all"), requests, st.integers(0, 1)),
        st.tuples(st.just("read"), requests, st.just(0)),
    ),
    max_size=80,
)


@given(steps=steps, outbox_events=st.integers(2, 20))
@settings(max_examples=200)
def test_no_client_ever_sees_a_request_go_back(steps: list[tuple[str, str, int]], outbox_events: int) -> None:
    """Events in any order, subscriptions that come and go, slow reading: pushed versions only grow."""
    hub, _, _ = make_hub(HubOptions(outbox_events=outbox_events))
    listener = Listener(hub)
    pushed: dict[str, int] = {}
    known: dict[str, int] = {}

    def read() -> None:
        for frame in listener.read():
            for event in frame.get("requests", ()):
                assert event["state_version"] >= known.get(event["request_id"], 0)
                known[event["request_id"]] = event["state_version"]
            if frame["type"] == "status":
                event = frame["event"]
                assert event["state_version"] > pushed.get(event["request_id"], 0)
                assert event["state_version"] >= known.get(event["request_id"], 0)
                pushed[event["request_id"]] = known[event["request_id"]] = event["state_version"]

    for step, request_id, number in steps:
        match step:
            case "event":
                hub.on_status(status_event(request_id, version=number))
            case "all":
                listener.command("subscribe" if number else "unsubscribe", all=True)
            case "read":
                read()
            case _:
                listener.command(step, request_ids=[request_id])
    read()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.sampled_from(["a", "default", "queued"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    [
        "request_ids",
        "correlation_id",
        "user_id",
        "tenant_id",
        "all",
        "lanes",
        "dead_letters",
        "deltas",
        "where",
        "limit",
        "token",
        "ticket",
        "subscriptions",
        "extra",
    ]
)
kinds = st.sampled_from(["authenticate", "refresh", "subscribe", "unsubscribe", "resume", "ping", "nonsense"])
fuzzed = st.tuples(st.integers(0, 3) | values, kinds | values, st.dictionaries(names, values, max_size=4))


@given(commands=st.lists(fuzzed, max_size=30), asks_for_tickets=st.booleans())
@settings(max_examples=300)
def test_whatever_is_commanded_each_command_is_answered_once_with_a_frame_of_the_schema(
    commands: list[tuple[object, object, dict[str, object]]], asks_for_tickets: bool
) -> None:
    """Well-formed JSON of any content: an answer to each (or the end), events go on, and nothing stays behind."""
    hub, _, _ = make_hub(asks_for_tickets=asks_for_tickets)
    listener = Listener(hub)
    listener.read()
    for number, (command_id, kind, fields) in enumerate(commands):
        if listener.client.is_ending or hub.owes(listener.client):
            break
        asked = hub.receive(listener.client, json.dumps({"id": command_id, "type": kind, **fields}))
        if asked is not None:
            hub.admit(listener.client, asked, "is no good")
        hub.on_status(status_event(f"r{number}"))
        answers = [frame for frame in listener.read() if "id" in frame]
        assert len(answers) == 1 or hub.owes(listener.client)
    hub.leave(listener.client)
    assert hub.roster.is_blank
    assert hub._waiting == {}
