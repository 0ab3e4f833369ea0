"""What a chaos run says of itself: to somebody who was woken by it, and to programs."""

import io
import json

from rich.console import Console

from bench.chaos_run.checker import check
from bench.chaos_run.logs import Logs, Sent
from bench.chaos_run.report import as_json, show
from bench.chaos_run.rounds import Diary, Options, Outcome, Round
from tests.bench.test_chaos_checker import CALLED_TWICE, GOOD, NAME

KILLED = "03:49:46.104 kill -9: lane-beta (pid 7)"


def outcome_of(logs: Logs, *, accidents: tuple[str, ...] = ()) -> Outcome:
    return Outcome(
        options=Options(requests=1, faults=("kill-lane",), seed=5),
        verdict=check(logs),
        logs=logs,
        seconds=12.0,
        rounds=[Round(number=1, fault="kill-lane", did=(KILLED,), seconds=3.0, sent=1, outstanding=0)],
        accidents=list(accidents),
    )


def shown(outcome: Outcome) -> str:
    written = io.StringIO()
    show(outcome, Console(file=written, width=160))
    return written.getvalue()


def lost() -> Logs:
    return Logs(sent=(Sent(request_id=NAME, round=1),), events=(), results=(), attempts=(), calls=())


def test_a_run_that_passed_says_so_first_and_last() -> None:
    text = shown(outcome_of(GOOD))
    assert text.count("PASSED") == 2
    assert text.rstrip().endswith("PASSED")
    for line in ("0  requests lost", "0  second terminal states", "0  extra calls without a flag"):
        assert line in text
    assert KILLED not in text


def test_a_failed_run_says_what_was_done_in_the_round_of_what_it_found() -> None:
    text = shown(outcome_of(lost()))
    assert "1  requests lost" in text
    assert f"{NAME}: no terminal event and no result" in text
    assert "sent: 1 in round 1 (kill-lane)" in text
    assert KILLED in text
    assert text.rstrip().endswith("FAILED")


def test_only_the_first_cases_of_a_finding_are_shown_to_people() -> None:
    many = Logs(sent=tuple(Sent(request_id=f"r-{n}") for n in range(9)), events=(), results=(), attempts=(), calls=())
    assert "and 4 more" in shown(outcome_of(many))
    assert len(as_json(outcome_of(many))["findings"]["lost"]) == 9


def test_processes_that_died_by_themselves_are_told() -> None:
    text = shown(outcome_of(GOOD, accidents=("lane-alpha (pid 3) ended by itself",)))
    assert "1  accidents" in text
    assert "lane-alpha (pid 3) ended by itself" in text


def test_the_accounts_tell_every_figure_of_the_bar() -> None:
    text = shown(outcome_of(CALLED_TWICE))
    assert "terminal states per request │ 0: none, 1: 1, 2: none" in text
    assert "1 raw, 1 by id, of 1 requests: 0 repeats that say the same" in text
    assert "calls per attempt           │ 0: none, 1: 2, 2: none" in text
    assert "1 flags: 1 with a call behind them, 0 to be safe; 0 missing" in text


def test_programs_get_the_same_as_plain_json() -> None:
    told = json.loads(json.dumps(as_json(outcome_of(lost()))))
    assert told["passed"] is False
    assert told["bar"] == {"requests lost": 1, "second terminal states": 0, "extra calls without a flag": 0}
    assert told["terminal_states_per_request"] == {"0": 1}
    assert told["rounds"][0]["did"] == [KILLED]


def test_a_diary_tells_at_once_and_is_taken_round_by_round() -> None:
    heard: list[str] = []
    diary = Diary(heard.append)
    diary.note("kill -9: Redis")
    (entry,) = diary.take()
    assert entry.endswith(" kill -9: Redis")
    assert heard == [f"    {entry}"]
    assert diary.take() == []
