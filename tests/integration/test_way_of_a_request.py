"""One request at a time through the whole system: real Kafka, real Redis, roles as processes."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from connectors.settings import Settings
from schemas import LLMRequest
from schemas.dead_letter_headers import read_dead_letter
from schemas.envelope import header
from schemas.request import Message
from schemas.vocabulary import FailureCategory, Kind, Role, State
from tests.integration.system import running_system

pytestmark = pytest.mark.integration


def chat(request_id: str, **fields: object) -> LLMRequest:
    return LLMRequest.model_validate(
        {"request_id": request_id, "messages": [Message(role=Role.USER, content="hello")], **fields}
    )


async def test_requests_of_every_kind_end_as_they_should(stack_settings: Settings, tmp_path: Path) -> None:
    """Completed, streamed, judged, failed, duplicated, invalid, too large, undecodable: each ends once."""
    options = {"SLUICE_WORKER__MAX_REQUEST_BYTES": "20000", "SLUICE_RETRY__MAX_RETRIES": "1"}
    async with running_system(stack_settings, tmp_path, options=options) as system:
        await asyncio.gather(system.start("intake"), system.start("lane", "simulated"), system.start("control"))
        requests = [
            chat("plain"),
            chat("streamed", stream=True),
            LLMRequest(
                request_id="judged",
                kind=Kind.COMPARISON,
                prompt="p",
                essay_a="The cat sat. " * 9,
                essay_b="Notwithstanding. " * 9,
            ),
            chat("failing", metadata={"simulated.fail": "server_error"}),
            chat("twice"),
            chat("twice"),
        ]
        await system.send(requests)
        json_request = {"request_id": "from-shell", "messages": [{"role": "user", "content": "hi"}]}
        too_large = json.dumps({**json_request, "request_id": "large", "prompt": "x" * 30_000}).encode()
        await system.send_raw(
            [
                (None, json.dumps(json_request).encode()),
                (b"invalid", b'{"request_id": "invalid", "messages": [], "temperature": 1}'),
                (b"large", too_large),
                (b"garbled", b"\xc3\x01\x00\x01\x02"),
                (b"\xff", b"\x00nobody knows"),
            ]
        )
        ids = ["plain", "streamed", "judged", "failing", "twice", "from-shell", "invalid", "large", "garbled"]
        outcome = await system.ended(ids)

    outcome.assert_each_ended_once(ids)
    for name in ("plain", "streamed", "judged", "twice", "from-shell"):
        assert outcome.result(name).status is State.COMPLETED, name
        assert outcome.states(name) == ["queued", "processing", "completed"]
    judged = outcome.result("judged").answer
    assert judged is not None
    assert judged.comparison is not None
    assert judged.comparison.winner == "Essay A"
    failing = outcome.result("failing")
    assert (failing.status, failing.problem and failing.problem.category) == (
        State.FAILED,
        FailureCategory.SERVER_ERROR,
    )
    rejected = {"invalid": "temperature", "large": "(record)", "garbled": "(record)"}
    for name, field in rejected.items():
        problem = outcome.result(name).problem
        assert outcome.states(name) == ["rejected"]
        assert problem is not None
        assert problem.field == field
    assert outcome.starts() == {"plain": 1, "streamed": 1, "judged": 1, "failing": 2, "twice": 1, "from-shell": 1}

    letters = {record.key: record for record in outcome.dead_letters}
    assert set(letters) == {b"invalid", b"large", b"garbled", b"\xff", b"failing"}
    assert outcome.states("failing") == ["queued", "processing", "retry_scheduled", "queued", "processing", "failed"]
    assert letters[b"large"].value == too_large
    assert letters[b"\xff"].value == b"\x00nobody knows"
    described = read_dead_letter(letters[b"garbled"].headers, size_bytes=5)
    assert (described.category, described.original_topic) == (
        FailureCategory.UNDECODABLE,
        stack_settings.topics.requests,
    )
    assert header(letters[b"garbled"].headers, "ce_type") == "test"


async def test_a_deadline_ends_a_running_call(stack_settings: Settings, tmp_path: Path) -> None:
    """A call that never answers is ended at the request's deadline, as expired and possibly billed."""
    async with running_system(stack_settings, tmp_path) as system:
        await asyncio.gather(system.start("intake"), system.start("lane", "simulated"))
        deadline = datetime.now(UTC) + timedelta(seconds=2)
        await system.send([chat("late", deadline_at=deadline, metadata={"simulated.hang": "true"})])
        outcome = await system.ended(["late"], timeout_seconds=20)
    outcome.assert_each_ended_once(["late"])
    result = outcome.result("late")
    assert (result.status, result.possibly_billed_calls) == (State.EXPIRED, 1)
    assert result.finished_at >= deadline.replace(microsecond=deadline.microsecond // 1000 * 1000)
    assert [call["event"] for call in outcome.calls] == ["start", "cancelled"]


async def test_roles_tell_operators_how_they_are(stack_settings: Settings, tmp_path: Path) -> None:
    """Each role serves metrics, health and readiness, and logs no text of requests or answers."""
    async with running_system(stack_settings, tmp_path) as system:
        intake, lane = await asyncio.gather(system.start("intake"), system.start("lane", "simulated"))
        sentence = "a-sentence-that-must-not-be-logged"
        request = LLMRequest(request_id="r", messages=[Message(role=Role.USER, content=sentence)])
        await system.send([request])
        await system.ended(["r"])
        async with aiohttp.ClientSession() as session:
            for role, metric in (
                (intake, "sluice_requests_received_total 1.0"),
                (lane, "sluice_pipeline_overhead_seconds"),
            ):
                base = f"http://127.0.0.1:{role.ops_port}"
                async with session.get(f"{base}/metrics") as response:
                    assert metric in await response.text()
                async with session.get(f"{base}/healthz") as response:
                    assert (await response.json())["status"] == "ok"
        for role in (intake, lane):
            assert await role.stop() == 0
            log = role.log_path.read_text()
            assert sentence not in log
            assert "worker_stopped" in log
