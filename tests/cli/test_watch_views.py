"""How `sluice watch` shows events."""

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from schemas import StatusEvent
from schemas.vocabulary import FailureCategory, State
from sluice.commands.watch_views import Lines, Screen

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def event(request_id: str, state: State, *, version: int = 1, reason: FailureCategory | None = None) -> StatusEvent:
    return StatusEvent(
        type=f"QUEUE_REQUEST_{state.upper()}",
        request_id=request_id,
        state=state,
        state_version=version,
        submitted_at=BEGAN,
        occurred_at=BEGAN + timedelta(seconds=1.5),
        reason=reason,
        provider="simulated",
    )


def last_frame(*events: StatusEvent, width: int = 80, height: int = 24) -> str:
    console = Console(force_terminal=True, width=width, height=height, color_system=None)
    screen = Screen(console)
    with console.capture() as captured, screen:
        for one in events:
            screen.show(one)
    return captured.get().rpartition("request ")[2]


def test_lines_are_json_or_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A line an event, complete in JSON, short in text."""
    one = event("a-1", State.FAILED, reason=FailureCategory.QUEUE_FULL)
    Lines(as_json=True).show(one)
    Lines(as_json=False).show(one)
    as_json, as_text = capsys.readouterr().out.splitlines()
    assert StatusEvent.model_validate_json(as_json) == one
    assert as_text == "a-1  failed  simulated    1.50 s  queue_full"


def test_the_screen_has_a_row_for_each_request_newest_first() -> None:
    """The row of a request moves up when it changes, and shows its newest state."""
    text = last_frame(event("a", State.QUEUED), event("b", State.QUEUED), event("a", State.COMPLETED, version=3))
    rows = [row.split()[:2] for row in text.splitlines() if "simulated" in row]
    assert rows == [["a", "completed"], ["b", "queued"]]


def test_the_screen_fits_and_cuts_only_ids_and_reasons() -> None:
    """In 80 columns a long id loses its end, and the state does not."""
    text = last_frame(event("x" * 60, State.RETRY_SCHEDULED, reason=FailureCategory.TIMEOUT_FIRST_TOKEN))
    assert max(len(row.rstrip()) for row in text.splitlines()) <= 80
    assert " retry_scheduled " in text
    assert "…" in text


def test_the_screen_has_as_many_rows_as_fit() -> None:
    """The newest, however many there are."""
    text = last_frame(*(event(f"r{number}", State.QUEUED) for number in range(100)), height=12)
    assert [row.split()[0] for row in text.splitlines() if "simulated" in row] == [
        f"r{number}" for number in range(99, 91, -1)
    ]
