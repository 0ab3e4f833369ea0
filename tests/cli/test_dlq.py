"""`sluice dlq` on a real Kafka: what is listed, sent back byte for byte, marked, and left alone."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from typer.testing import Result

from connectors.kafka.producer import Outgoing
from connectors.settings import Settings
from schemas.codec import decode_single_object, encode_body, single_object_header
from schemas.dead_letter import DeadLetterMark
from schemas.dead_letter_headers import VALUE_LEFT_OUT, Redrive, read_redrive
from schemas.request import LLMRequest
from schemas.vocabulary import DeadLetterAction, FailureCategory
from sluice.commands import dlq
from tests.cli.conftest import Invoke
from tests.cli.dlq_support import DeadLetterTopics
from tests.cli.processes import Command, sluice

pytestmark = pytest.mark.integration

Dlq = Callable[..., Awaitable[Result]]
WEIRD = bytes(range(256))


@pytest.fixture
async def topics(stack_settings: Settings) -> DeadLetterTopics:
    made = DeadLetterTopics(stack_settings)
    await made.create()
    return made


@pytest.fixture
def sluice_dlq(invoke: Invoke, topics: DeadLetterTopics, monkeypatch: pytest.MonkeyPatch) -> Dlq:
    """Runs `sluice dlq ...` in a thread, for it has an event loop of its own."""
    monkeypatch.setattr(dlq, "configure_command_logs", lambda *_args, **_kwargs: None)

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(invoke, "dlq", *arguments, **topics.environment)

    return run


async def listed(sluice_dlq: Dlq, *arguments: str) -> dict[str, Any]:
    result = await sluice_dlq("list", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


async def ids(sluice_dlq: Dlq, *arguments: str) -> list[str]:
    return [letter["request_id"] for letter in (await listed(sluice_dlq, *arguments))["letters"]]


def sent_as(record: ConsumerRecord) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    return record.key, record.value, [pair for pair in record.headers if not pair[0].startswith("sluice_redrive-")]


async def test_the_newest_are_listed_and_the_rest_counted(topics: DeadLetterTopics, sluice_dlq: Dlq) -> None:
    """Newest first, with a count by category; the table has the same, and no control character of a stranger."""
    await topics.write(
        topics.letter("old", category=FailureCategory.DEADLINE),
        topics.letter("middle", message="a\x1b[2Jb [red]c"),
        topics.letter("new"),
    )
    found = await listed(sluice_dlq, "--limit", "2")
    assert [letter["request_id"] for letter in found["letters"]] == ["new", "middle"]
    assert (found["total"], found["categories"]) == (3, {"overloaded": 2, "deadline": 1})
    table = await sluice_dlq("list", "--limit", "2")
    assert [line.split()[4] for line in table.stdout.splitlines()[1:]] == ["new", "middle"]
    assert "a\\x1b[2Jb [red]c" in table.stdout
    assert "3 dead letters: 2 overloaded, 1 deadline." in table.stderr
    assert "1 older ones are not shown" in table.stderr


async def test_filters_narrow_and_values_of_one_widen(topics: DeadLetterTopics, sluice_dlq: Dlq) -> None:
    """By category, provider, tenant, model, id and place."""
    await topics.write(
        topics.letter("a", provider="openai", model="m-1"),
        topics.letter("b", provider="openai", model="m-2", tenant_id="t"),
        topics.letter("c", provider="other", category=FailureCategory.DEADLINE),
        topics.letter(None, key=b"x"),
    )
    expected = {
        ("--provider", "openai"): {"a", "b"},
        ("--provider", "openai", "--provider", "other"): {"a", "b", "c"},
        ("--provider", "openai", "--tenant", "t"): {"b"},
        ("--model", "m-1"): {"a"},
        ("--category", "deadline"): {"c"},
        ("a", "c"): {"a", "c"},
        ("--since", "1h"): {"a", "b", "c", None},
        ("--until", "1h"): set(),
        ("--since", (datetime.now(UTC) + timedelta(hours=2)).isoformat()): set(),
    }
    for arguments, names in expected.items():
        assert set(await ids(sluice_dlq, *arguments)) == names, arguments
    place = next(one["at"] for one in (await listed(sluice_dlq))["letters"] if one["request_id"] is None)
    assert await ids(sluice_dlq, "--at", place) == [None]


async def test_a_repeat_is_shown_once_and_another_letter_of_the_same_id_is_shown(
    topics: DeadLetterTopics, sluice_dlq: Dlq
) -> None:
    """A worker that died writes its letter twice; a second bad record, and a second life, are letters of their own."""
    letter = topics.letter("twice", state_version=4)
    await topics.write(letter, letter)
    await topics.write(topics.letter("twice", state_version=4, offset=8), topics.letter("twice", state_version=9))
    assert (await listed(sluice_dlq))["total"] == 3
    assert (await sluice_dlq("redrive", "--yes")).exit_code == 0
    assert len(await topics.requests()) == 3
    marked = {record.key for record in await topics.records(topics.settings.topics.dead_letter_marks)}
    assert len(marked) == 4  # the repeat as well: it would be shown when the first is gone
    assert await ids(sluice_dlq) == []


async def test_a_repeat_is_known_also_where_the_first_died_before_since(
    topics: DeadLetterTopics, sluice_dlq: Dlq
) -> None:
    """It would be redriven by each operator who asks for another time."""
    await topics.write(topics.letter("twice"))
    (first,) = await topics.records(topics.settings.topics.dead_letters)
    cut = datetime.fromtimestamp((first.timestamp + 1) / 1000, UTC)
    while datetime.now(UTC) <= cut:
        await asyncio.sleep(0.001)
    await topics.write(topics.letter("twice"), topics.letter("other"))
    assert await ids(sluice_dlq, "--since", cut.isoformat()) == ["other"]


@pytest.mark.parametrize(
    ("key", "value"),
    [(WEIRD, WEIRD), (None, b"\x00"), (b"k", None), (b"k", b""), (b"\xff", b"\xc3\x01" + b"x" * 1_500_000)],
    ids=["any bytes", "null key", "null value", "empty value", "large"],
)
async def test_a_redriven_record_is_byte_for_byte_what_came_in(
    topics: DeadLetterTopics, sluice_dlq: Dlq, key: bytes | None, value: bytes | None
) -> None:
    """Key, value and headers in their order, repeated ones too; what the dead letter added is gone."""
    headers = [("traceparent", b"00-1"), ("x", WEIRD), ("x", b""), ("kafkaü", "ü".encode()), ("x", b"2")]
    letter = topics.letter("w", key=key, value=value, headers=headers, state_version=5, attempt=3, redrive_count=1)
    await topics.write(letter)
    result = await sluice_dlq("redrive", "w")
    assert (result.exit_code, result.stderr) == (0, "1 of 1 redriven.\n")
    (record,) = await topics.requests()
    assert sent_as(record) == (key, value, headers)
    assert read_redrive(record.headers) == Redrive(count=2, state_version=5, attempt=3)
    assert await ids(sluice_dlq) == []
    assert await ids(sluice_dlq, "--all") == ["w"]
    again = await sluice_dlq("redrive", "w")
    assert (again.exit_code, again.stderr) == (0, "Nothing to redrive (1 that match were handled before).\n")
    assert len(await topics.requests()) == 1


async def test_a_dry_run_writes_nothing(topics: DeadLetterTopics, sluice_dlq: Dlq) -> None:
    """It says how many there are, of what category, and how many it could not send."""
    await topics.write(topics.letter("a"), topics.letter("b"), topics.letter("c", topic="elsewhere"))
    for command in (("redrive",), ("purge",), ("purge", "--before", "2100-01-01")):
        result = await sluice_dlq(*command, "--dry-run", "--json")
        assert (result.exit_code, json.loads(result.stdout)["matching"]) == (0, 3)
        assert "3 dead letters: 3 overloaded" in result.stderr
        assert ("1 of them cannot be redriven" in result.stderr) == (command == ("redrive",))
    assert await topics.requests() == []
    assert await topics.records(topics.settings.topics.dead_letter_marks) == []
    assert (await listed(sluice_dlq))["total"] == 3


async def test_many_are_redriven_once_each_and_a_limit_holds(topics: DeadLetterTopics, sluice_dlq: Dlq) -> None:
    """First some, then the rest: no letter twice, none left out."""
    names = await topics.write_many(150)
    some = json.loads((await sluice_dlq("redrive", "--limit", "40", "--yes", "--json")).stdout)
    assert (some["matching"], some["done"]) == (40, 40)
    assert len(await ids(sluice_dlq, "--limit", "1000")) == 110
    await sluice_dlq("redrive", "--yes", "--rate", "5000/s")
    assert sorted(record.key.decode() for record in await topics.requests()) == sorted(names)


async def test_what_cannot_be_redriven_is_refused_with_the_reason(topics: DeadLetterTopics, sluice_dlq: Dlq) -> None:
    """Nothing is sent to a topic that a header names; the others go, and the exit code says that some did not.

    As a process: standard output has to be the JSON alone, whatever the libraries log.
    """
    requests = topics.settings.topics.requests
    lane = topics.settings.topics.lane("simulated", "normal")  # type: ignore[arg-type]
    gone = topics.letter("gone", value=None, offset=10**9)
    await topics.write(
        topics.letter("good"),
        topics.letter("task", topic=lane),
        topics.letter("large", value=b"x" * 2_500_000),
        replace(gone, headers=[*gone.headers, (VALUE_LEFT_OUT, b"9")]),
        Outgoing(topic=topics.settings.topics.dead_letters, key=b"k", value=b"v"),
    )
    ended = await sluice("dlq", "redrive", "--yes", "--json", environment=topics.environment)
    assert ended.exit_code == 1
    assert len(ended.stderr.splitlines()) == 4
    told = json.loads(ended.stdout)
    assert (told["done"], told["refused"]) == (1, 4)
    reasons = {refused["request_id"]: refused["reason"] for refused in told["refusals"]}
    assert reasons["task"] == f"it came from {lane}, and only what came from {requests} can be redriven"
    assert "too large" in reasons["large"]
    assert "Kafka no longer has partition 0, offset 1000000000" in reasons["gone"]
    assert "another program" in reasons[None]
    assert [record.key for record in await topics.requests()] == [b"good"]
    assert len(await ids(sluice_dlq)) == 4


async def test_a_value_that_was_left_out_is_fetched_where_it_lies(topics: DeadLetterTopics, sluice_dlq: Dlq) -> None:
    """With the key and headers that it has there; another record at that place is not taken for it."""
    await topics.write(Outgoing(topic=topics.settings.topics.requests, key=b"f", value=WEIRD, headers=[("h", b"1")]))
    (original,) = await topics.requests()
    born = datetime.fromtimestamp(original.timestamp / 1000, UTC)
    for name, at in (("f", born), ("other", born - timedelta(days=1))):
        where = {"original_partition": original.partition, "original_timestamp": at}
        letter = topics.letter(name, value=None, offset=original.offset, **where)
        await topics.write(replace(letter, headers=[*letter.headers, (VALUE_LEFT_OUT, b"256")]))
    result = await sluice_dlq("redrive", "--yes")
    assert result.exit_code == 1
    assert "another record stands at" in result.stderr
    _, redriven = await topics.requests()
    assert sent_as(redriven) == (b"f", WEIRD, [("h", b"1")])


KILLED_BEFORE_THE_MARK = """
import os, signal
from sluice.dlq.mailbox import Mailbox

async def mark(*_):
    os.kill(os.getpid(), signal.SIGKILL)

Mailbox.mark = mark
from sluice.cli import main
main()
"""


async def test_killed_between_the_record_and_its_mark_it_shows_the_letter_again(
    topics: DeadLetterTopics, sluice_dlq: Dlq
) -> None:
    """And the second record has the same redrive count as the first: that is how intake knows it for a duplicate."""
    await topics.write(topics.letter("k", state_version=3, attempt=2))
    command = [sys.executable, "-c", KILLED_BEFORE_THE_MARK, "dlq", "redrive", "k"]
    environment = {"PATH": "", "PYTHONPATH": ":".join(filter(None, sys.path)), **topics.environment}
    root = str(dlq.__file__).partition("/sluice/commands")[0]
    killed = await asyncio.to_thread(
        subprocess.run, command, env=environment, cwd=root, capture_output=True, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert await ids(sluice_dlq) == ["k"]
    assert (await sluice_dlq("redrive", "k")).exit_code == 0
    first, second = await topics.requests()
    assert (first.key, first.value, first.headers) == (second.key, second.value, second.headers)
    assert read_redrive(second.headers) == Redrive(count=1, state_version=3, attempt=2)
    assert await ids(sluice_dlq) == []


async def test_ctrl_c_says_how_far_it_got_and_the_same_command_goes_on(
    topics: DeadLetterTopics, sluice_dlq: Dlq
) -> None:
    """What was sent is marked before it ends, so that nothing is sent twice."""
    names = await topics.write_many(200)
    command = Command("dlq", "redrive", "--yes", "--rate", "20/s", environment=topics.environment)
    while not await topics.requests():
        await asyncio.sleep(0.05)
    command.interrupt()
    ended = await asyncio.to_thread(command.end)
    assert ended.exit_code == 130
    told = re.fullmatch(
        r"Interrupted\. (\d+) of 200 redriven\. The same command goes on with the rest\.\n", ended.stderr
    )
    assert told is not None, ended.stderr
    assert len(await topics.requests()) == int(told[1]) < 200
    await sluice_dlq("redrive", "--yes")
    assert sorted(record.key.decode() for record in await topics.requests()) == sorted(names)


async def test_two_operators_at_once_share_the_letters(topics: DeadLetterTopics) -> None:
    """Each sees the other's marks as they come. What both send within that moment has the same redrive count."""
    names = await topics.write_many(60)
    both = [Command("dlq", "redrive", "--yes", "--rate", "40/s", environment=topics.environment) for _ in range(2)]
    ended = await asyncio.gather(*(asyncio.to_thread(command.end) for command in both))
    assert [one.exit_code for one in ended] == [0, 0], ended
    records = await topics.requests()
    assert {record.key.decode() for record in records} == set(names)
    counts = {read_redrive(record.headers) for record in records}
    assert counts == {Redrive(count=1, state_version=0, attempt=0)}


async def test_purged_letters_are_hidden_and_their_records_stay(topics: DeadLetterTopics, sluice_dlq: Dlq) -> None:
    """Marked, with who did it; the others are untouched, and nothing is sent."""
    await topics.write(topics.letter("bad", category=FailureCategory.INVALID_REQUEST), topics.letter("good"))
    result = await sluice_dlq("purge", "--category", "invalid_request")
    assert (result.exit_code, result.stderr) == (0, "1 of 1 purged.\n")
    assert await ids(sluice_dlq) == ["good"]
    (record,) = await topics.records(topics.settings.topics.dead_letter_marks)
    mark = decode_single_object(DeadLetterMark, record.value)
    assert record.key.decode() == f"{mark.partition}-{mark.offset}"
    assert (mark.action, mark.request_id) == (DeadLetterAction.PURGED, "bad")
    shown = json.loads((await sluice_dlq("show", "bad", "--json")).stdout)["letters"][0]
    assert (shown["handled"]["action"], shown["handled"]["by"]) == ("purged", mark.by)
    assert len(await topics.records(topics.settings.topics.dead_letters)) == 2
    assert await topics.requests() == []


async def test_purge_before_deletes_the_records_of_then_and_no_later_ones(
    topics: DeadLetterTopics, sluice_dlq: Dlq
) -> None:
    """Those that were redriven too. It stands alone: a filter would delete what it does not mean."""
    await topics.write(topics.letter("redriven"), topics.letter("old"))
    await sluice_dlq("redrive", "redriven")
    last = max(record.timestamp for record in await topics.records(topics.settings.topics.dead_letters))
    cut = datetime.fromtimestamp((last + 1) / 1000, UTC)
    while datetime.now(UTC) <= cut:
        await asyncio.sleep(0.001)
    await topics.write(topics.letter("new"))
    assert (await sluice_dlq("purge", "--before", cut.isoformat(), "--tenant", "default")).exit_code == 2
    unasked = await sluice_dlq("purge", "--before", cut.isoformat())
    assert (unasked.exit_code, "Say --yes" in unasked.stderr) == (2, True)
    result = await sluice_dlq("purge", "--before", cut.isoformat(), "--yes")
    assert (result.exit_code, result.stderr) == (0, "1 of 1 purged. The records were deleted.\n")
    assert [record.key for record in await topics.records(topics.settings.topics.dead_letters)] == [b"new"]
    assert await ids(sluice_dlq, "--all") == ["new"]


async def test_show_keeps_the_text_of_a_request_for_those_who_ask_for_it(
    topics: DeadLetterTopics, sluice_dlq: Dlq
) -> None:
    """Headers always; the value with --value alone, decoded where it can be."""
    request = LLMRequest.model_validate({"request_id": "s", "messages": [{"role": "user", "content": "a secret"}]})
    avro = single_object_header(LLMRequest) + encode_body(request)
    await topics.write(
        topics.letter("s", value=avro, headers=[("x-trace", b"1")], attempt=3),
        topics.letter("j", value=b'{"request_id": "j"}'),
        topics.letter("b", value=b"\xff\x00"),
    )
    hidden = await sluice_dlq("show", "s")
    assert (hidden.exit_code, "secret" in hidden.stdout) == (0, False)
    assert re.search(r"x-trace +1\n", hidden.stdout)
    assert "a secret" in (await sluice_dlq("show", "s", "--value")).stdout
    shown = json.loads((await sluice_dlq("show", "--value", "--json")).stdout)["letters"]
    values = {letter["request_id"]: letter["value"] for letter in shown}
    assert values["s"]["request"]["messages"][0]["content"] == "a secret"
    assert (values["j"], values["b"]) == ({"json": {"request_id": "j"}}, {"base64": "/wA="})
    nobody = await sluice_dlq("show", "nobody")
    assert (nobody.exit_code, nobody.stdout) == (3, "")


async def test_a_redrive_of_many_asks_and_cannot_where_nobody_is_there(
    topics: DeadLetterTopics, sluice_dlq: Dlq
) -> None:
    """Standard input is no terminal here."""
    await topics.write(topics.letter("a"), topics.letter("b"))
    result = await sluice_dlq("redrive")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "This would redrive 2 dead letters: 2 overloaded. Say --yes where nobody can be asked.\n"
    assert await topics.requests() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--since", "yesterday"), "yesterday is no time: "),
        (("redrive", "--rate", "0/s"), "0/s is no rate: "),
        (("list", "--at", "7"), "7 is no position: "),
        (("purge", "--category", "overload"), "--category: there is no overload; did you mean overloaded?"),
        (("purge", "--before", "1d", "a"), "--before deletes records whatever they are: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
async def test_it_says_how_it_is_to_be_called(arguments: tuple[str, ...], said: str, sluice_dlq: Dlq) -> None:
    """With exit code 2, before anything is read."""
    result = await sluice_dlq(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(said)


async def test_without_topics_or_kafka_it_says_what_to_do(
    invoke: Invoke, stack_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4, one line, nothing on standard output."""
    monkeypatch.setattr(dlq, "configure_command_logs", lambda *_args, **_kwargs: None)
    bare = DeadLetterTopics(stack_settings).environment
    for environment, said in ((bare, "sluice topics create"), ({"KAFKA_BOOTSTRAP": "127.0.0.1:1"}, "KAFKA_BOOTSTRAP")):
        result = await asyncio.to_thread(invoke, "dlq", "list", **environment)
        assert (result.exit_code, result.stdout) == (4, "")
        assert said in result.stderr
