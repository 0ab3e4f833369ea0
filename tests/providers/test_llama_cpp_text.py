from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from connectors.providers.llama_cpp_text import TokenText


def shown(pieces: list[bytes], stops: list[str]) -> tuple[str, bool]:
    text = TokenText(stops)
    return "".join([*(text.add(piece) for piece in pieces), text.end()]), text.stopped


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


def test_a_character_of_several_tokens_comes_whole() -> None:
    """Nothing is shown until its last byte is there."""
    text = TokenText()
    assert [text.add(bytes([byte])) for byte in "é!".encode()] == ["", "é", "!"]


def test_what_may_become_a_stop_is_held_back() -> None:
    """And shown once it turns out to be something else."""
    text = TokenText(["END"])
    assert [text.add(piece) for piece in (b"a", b"E", b"N", b"x")] == ["a", "", "", "ENx"]
    assert not text.stopped


def test_what_is_held_back_is_shown_at_the_end() -> None:
    """Half a stop string is text."""
    assert shown([b"a", b"EN"], ["END"]) == ("aEN", False)


def test_the_first_of_several_stops_counts() -> None:
    """Wherever they stand in the list."""
    assert shown([b"one STOP two END"], ["END", "STOP"]) == ("one ", True)


@given(st.text(alphabet="abé€😀 "), st.lists(st.integers(0, 100)))
def test_without_stops_all_text_is_shown(text: str, places: list[int]) -> None:
    """However the bytes are cut into tokens."""
    assert shown(cut(text.encode(), places), []) == (text, False)


@given(
    st.text(alphabet="abc", max_size=30),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 100)),
)
def test_text_ends_before_the_first_stop(text: str, stops: list[str], places: list[int]) -> None:
    """However the bytes are cut into tokens."""
    result, stopped = shown(cut(text.encode(), places), stops)
    assert text.startswith(result)
    assert stopped is any(stop in text for stop in stops)
    assert not any(stop in result for stop in stops)
    if stopped:
        assert any(text[len(result) :].startswith(stop) for stop in stops)
    else:
        assert result == text
