"""Flesch reading ease: how easy a text is to read, from sentence length and word length alone.

    206.835 - 1.015 x (words / sentences) - 84.6 x (syllables / words)

Source: Rudolf Flesch, "A new readability yardstick", Journal of Applied Psychology 32 (1948). 60 to 70 is plain
English, below 30 is very difficult; long sentences can take it below zero. Written for English.

Syllables are counted by a rule, not looked up: groups of vowels, less an ending that is not spoken (`_SILENT`), and
never below one. `y` is a vowel. The rule errs on single words ("poem" gets one) and evens out over a text.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

_CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"
_CLOSING = f"\"')]\N{RIGHT DOUBLE QUOTATION MARK}{_CURLY}"
_WORD = re.compile(rf"[^\W\d_]+(?:['{_CURLY}][^\W\d_]+)*")
_SENTENCE_END = re.compile(rf"[.!?]+(?=[\s{re.escape(_CLOSING)}]|$)")
_VOWELS = re.compile(r"[aeiouyàâäáèéêëìíîïòóôöùúûü]+")
_SILENT = re.compile(
    r"""
      (?<![aeiouyl])e$              # make, but not free; table is spared by the l
    | (?<=[aeiouy]l)e$              # whole
    | (?<![aeiouytd])ed$            # owned, but not wanted
    | (?<![aeiouycgsxzhl])es$       # makes, but not houses; tables is spared by the l
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingEase:
    """The score of a text and the counts it comes from. A text without words scores 0."""

    score: float
    words: int
    sentences: int
    syllables: int


def reading_ease(text: str) -> ReadingEase:
    """Scores a text. A text that ends without a full stop still ends a sentence."""
    words = _WORD.findall(text)
    if not words:
        return ReadingEase(score=0.0, words=0, sentences=0, syllables=0)
    sentences = max(1, len(_SENTENCE_END.findall(text.rstrip())) + (not _ends_a_sentence(text)))
    syllables = sum(_remembered(word) if len(word) <= _LONGEST_REMEMBERED else syllables_in(word) for word in words)
    score = 206.835 - 1.015 * len(words) / sentences - 84.6 * syllables / len(words)
    return ReadingEase(score=score, words=len(words), sentences=sentences, syllables=syllables)


def syllables_in(word: str) -> int:
    """Syllables of one English word, by the rule above."""
    spoken = _SILENT.sub("", word.lower())
    return max(1, len(_VOWELS.findall(spoken)))


_LONGEST_REMEMBERED = 24
_remembered = lru_cache(maxsize=8192)(syllables_in)
"""Few words make up most of a text. Bounded in number and in length."""


def _ends_a_sentence(text: str) -> bool:
    return text.rstrip().rstrip(_CLOSING)[-1:] in {".", "!", "?"}
