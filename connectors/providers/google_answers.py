"""Reads the objects of google-genai into an answer: one response, or the chunks of a stream.

A stream is whole only after a `finishReason`: the SDK ends one that was cut off without a word. A blocked prompt comes
with status 200 and no candidates. Gemini has no refusal of its own; its filters say no.
"""

from google.genai import types

from connectors.providers.answer_draft import (
    CUT_AT_THE_LIMIT,
    FILTERED,
    AnswerDraft,
    BadEnd,
    MalformedAnswerError,
    usage_of,
)
from connectors.providers.base import Answered, Failed
from schemas.vocabulary import FailureCategory

PROMPT_BLOCKED = BadEnd(
    category=FailureCategory.CONTENT_FILTER, message="the provider's content filter blocked the prompt"
)
_BLOCKED = "BLOCKED_PROMPT"

BAD_ENDS: dict[str, BadEnd] = {
    "MAX_TOKENS": CUT_AT_THE_LIMIT,
    "CONTINUATION": CUT_AT_THE_LIMIT,  # the limit of one request; going on would be another, paid one
    "SAFETY": FILTERED,
    "RECITATION": FILTERED,
    "LANGUAGE": FILTERED,
    "BLOCKLIST": FILTERED,
    "PROHIBITED_CONTENT": FILTERED,
    "SPII": FILTERED,
    "ESCALATION": FILTERED,
    "MODEL_ARMOR": FILTERED,
    "IMAGE_SAFETY": FILTERED,
    "IMAGE_PROHIBITED_CONTENT": FILTERED,
    "IMAGE_RECITATION": FILTERED,
    "PUP_LIMITED_DISABLED": BadEnd(
        category=FailureCategory.PERMISSION, message="the account is limited for violations of Google's use policy"
    ),
    _BLOCKED: PROMPT_BLOCKED,
}
"""By `finishReason`. What is neither here nor good (OTHER, MALFORMED_RESPONSE ...) is no answer, and worth a retry."""

GOOD_ENDS = frozenset({"STOP"})


class GoogleAnswer:
    """One answer while it arrives."""

    def __init__(self, draft: AnswerDraft) -> None:
        self.draft = draft

    def add(self, response: types.GenerateContentResponse) -> str:
        """Takes a response, or the next chunk of a stream. Returns the text in it."""
        self.draft.model = response.model_version or self.draft.model
        self.draft.response_id = response.response_id or self.draft.response_id
        self._add_usage(response.usage_metadata)
        if response.prompt_feedback is not None and response.prompt_feedback.block_reason is not None:
            self.draft.end = _BLOCKED
            return ""
        if not response.candidates:
            if self.draft.streamed and response.usage_metadata is not None:
                return ""  # some chunks of a stream carry accounts alone
            raise MalformedAnswerError("what came is no answer: it has no candidates")
        candidate = response.candidates[0]
        parts = (candidate.content.parts if candidate.content else None) or []
        text = self.draft.add("".join(part.text for part in parts if part.text and not part.thought))
        # Last, so that nothing counts as whole that could not be read.
        if candidate.finish_reason is not None:
            self.draft.end = candidate.finish_reason.value
        return text

    def outcome(self) -> Answered | Failed:
        """How the call ended, now that nothing more will come."""
        return self.draft.outcome(BAD_ENDS, good_ends=GOOD_ENDS)

    def _add_usage(self, reported: types.GenerateContentResponseUsageMetadata | None) -> None:
        if reported is None:
            return
        self.draft.usage = usage_of(
            input_tokens=(reported.prompt_token_count or 0) + (reported.tool_use_prompt_token_count or 0),
            # Thoughts are paid for as output, and not in the candidates' count.
            output_tokens=(reported.candidates_token_count or 0) + (reported.thoughts_token_count or 0),
            cached_input_tokens=reported.cached_content_token_count,
        )
