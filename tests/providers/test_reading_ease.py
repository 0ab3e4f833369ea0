import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.providers.reading_ease import reading_ease, syllables_in


@pytest.mark.parametrize(
    ("word", "syllables"),
    [
        ("the", 1),
        ("make", 1),
        ("makes", 1),
        ("free", 1),
        ("table", 2),
        ("tables", 2),
        ("whole", 1),
        ("owned", 1),
        ("wanted", 2),
        ("created", 2),
        ("houses", 2),
        ("agreed", 2),
        ("people", 2),
        ("rhythm", 1),
        ("beautiful", 3),
        ("government", 3),
        ("constitution", 4),
        ("CONSTITUTION", 4),
    ],
)
def test_syllables_by_the_rule(word: str, syllables: int) -> None:
    """The rule counts as documented, endings that are not spoken included."""
    assert syllables_in(word) == syllables


def test_the_formula() -> None:
    """Six words of one syllable in one sentence score 206.835 - 1.015 x 6 - 84.6."""
    ease = reading_ease("The cat sat on the mat.")
    assert (ease.words, ease.sentences, ease.syllables) == (6, 1, 6)
    assert ease.score == pytest.approx(206.835 - 1.015 * 6 - 84.6)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", 4),
        ("No end", 1),
        ("He asked: “Why?” (Nobody knew.)", 2),
        ("It cost 3.50 in all.", 1),
        ("Wait... what?!", 2),
        ("\n  Spaces around.  \n", 1),
    ],
)
def test_sentences(text: str, sentences: int) -> None:
    """A sentence ends at marks that are followed by space or a closing quote, and at the end of the text."""
    assert reading_ease(text).sentences == sentences


def test_a_text_without_words_scores_zero() -> None:
    """Nothing is divided by nothing."""
    assert reading_ease(" ... 42 ").score == 0.0


def test_shorter_sentences_read_easier() -> None:
    """The same words in two sentences score higher than in one."""
    assert reading_ease("We go home. We sleep.").score > reading_ease("We go home we sleep.").score


@given(st.text(max_size=2_000))
def test_any_text_has_a_score(text: str) -> None:
    """No text is too odd, and every word has a syllable."""
    ease = reading_ease(text)
    assert ease.syllables >= ease.words
    assert math.isfinite(ease.score)
