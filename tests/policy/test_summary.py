"""What is kept of a request comes back from the shared state as it went there."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.failures import problem
from policy.summary import Summary, dump_summary, load_summary, summary_of
from schemas import LaneTask
from schemas.attempt import Attempt, Usage
from schemas.task import Origin
from schemas.vocabulary import AttemptOutcome, FailureCategory, Kind

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

ids = st.from_regex(r"[A-Za-z0-9._:@-]{1,40}", fullmatch=True)
moments = st.integers(0, 10**9).map(lambda ms: NOW + timedelta(milliseconds=ms))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
problems = st.builds(
    problem, st.sampled_from(FailureCategory), texts, retry_after_seconds=st.none() | st.floats(0, 10_000)
)
attempts = st.builds(
    Attempt,
    request_id=ids,
    tenant_id=ids,
    attempt=st.integers(1, 9),
    provider=st.just("p"),
    model=texts,
    outcome=st.sampled_from(AttemptOutcome),
    started_at=moments,
    ended_at=moments,
    duration_ms=st.floats(0, 10**6),
    usage=st.none() | st.builds(Usage, input_tokens=st.integers(0, 10**6), output_tokens=st.integers(0, 10**6)),
    cost_usd=st.none() | st.floats(0, 100),
    problem=st.none() | problems,
    possibly_billed=st.booleans(),
    worker=texts,
)
summaries = st.builds(
    Summary,
    request_id=ids,
    tenant_id=ids,
    user_id=st.none() | ids,
    correlation_id=st.none() | ids,
    kind=st.sampled_from(Kind),
    metadata=st.dictionaries(texts, texts, max_size=3),
    submitted_at=moments,
    queued_at=moments,
    deadline_at=moments,
    provider=st.just("p"),
    model=texts,
    attempts=st.lists(attempts, max_size=3),
    origin=st.none() | st.builds(Origin, topic=texts, partition=st.integers(0, 99), offset=st.integers(0, 2**40)),
    result_topic=st.none() | texts,
    redrive_count=st.integers(0, 9),
    retry_at=st.none() | moments,
)


@given(summaries)
def test_a_summary_comes_back_as_it_went(summary: Summary) -> None:
    assert load_summary(dump_summary(summary)) == summary


@pytest.mark.parametrize("text", [b"", b"{}", b"null", b"\xff", b'{"request_id": "r"}', b"[" * 100_000])
def test_what_no_version_wrote_is_none(text: bytes) -> None:
    assert load_summary(text) is None


def test_a_task_gives_all_that_its_end_needs() -> None:
    task = LaneTask.model_validate(
        {
            "request": {
                "request_id": "r",
                "tenant_id": "t",
                "user_id": "u",
                "correlation_id": "c",
                "metadata": {"k": "v"},
                "messages": [{"role": "user", "content": "secret"}],
                "result_topic": "mine",
            },
            "decision": {"provider": "p", "model": "m", "reason": "x"},
            "submitted_at": NOW,
            "queued_at": NOW + timedelta(seconds=1),
            "deadline_at": NOW + timedelta(seconds=2),
            "not_before": NOW + timedelta(seconds=3),
            "origin": {"topic": "llm.requests", "partition": 1, "offset": 2},
            "redrive_count": 4,
        }
    )
    summary = summary_of(task)
    assert load_summary(dump_summary(summary)) == Summary(
        request_id="r",
        tenant_id="t",
        user_id="u",
        correlation_id="c",
        metadata={"k": "v"},
        submitted_at=task.submitted_at,
        queued_at=task.queued_at,
        deadline_at=task.deadline_at,
        provider="p",
        model="m",
        origin=Origin(topic="llm.requests", partition=1, offset=2),
        result_topic="mine",
        redrive_count=4,
        retry_at=task.not_before,
    )
    assert b"secret" not in dump_summary(summary)
