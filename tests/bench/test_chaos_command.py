"""The command line of the chaos run."""

from pathlib import Path

import pytest

from bench import chaos
from bench.chaos_run.rounds import Options


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The options of runs that were started: none runs."""
    started: list[Options] = []

    def note(options: Options, _folder: Path | None, *, is_json: bool) -> int:
        started.append(options)
        return 0

    monkeypatch.setattr(chaos, "_run", note)
    return started


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["chaos", *arguments])
    with pytest.raises(SystemExit) as ended:
        chaos.main()
    return int(ended.value.code or 0)


def without_faketime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "find_library", lambda: None)


def test_where_no_clock_can_be_stepped_those_faults_are_left_out_and_a_line_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], chosen: list[Options]
) -> None:
    without_faketime(monkeypatch)
    assert call(monkeypatch, "--requests", "100", "--rounds", "60") == 0
    assert not {"clock-ahead", "clock-behind"} & set(chosen[0].faults)
    assert "left out: clock-ahead, clock-behind, which need libfaketime" in capsys.readouterr().err


def test_clock_faults_that_were_asked_for_and_cannot_be_are_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], chosen: list[Options]
) -> None:
    without_faketime(monkeypatch)
    assert call(monkeypatch, "--faults", "clock-ahead,kill-lane") == chaos.EXIT_MISUSED
    assert "clock-ahead: no clock can be stepped here without libfaketime" in capsys.readouterr().err
    assert chosen == []


def test_the_bar_meets_every_fault(monkeypatch: pytest.MonkeyPatch, chosen: list[Options]) -> None:
    monkeypatch.setattr(chaos, "find_library", lambda: Path("/lib/there.so"))
    assert call(monkeypatch) == 0
    assert (chosen[0].requests, len(chosen[0].faults)) == (20_000, 30)
    assert set(chosen[0].faults) == set(chaos.possible_faults())


def test_a_fault_that_there_is_not_is_an_error_that_names_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], chosen: list[Options]
) -> None:
    assert call(monkeypatch, "--faults", "redis-sold") == chaos.EXIT_MISUSED
    assert "no such fault: redis-sold; there are: kill-intake" in capsys.readouterr().err
    assert chosen == []
