"""A record that was written is read back with the same values."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import RECORDS, LLMRequest, Record
from schemas.attempt import Usage
from schemas.codec import SingleObjectCodec, decode_json, decode_single_object
from tests.schemas.strategies import records

CODEC = SingleObjectCodec()
THOROUGH = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("record_type", RECORDS, ids=lambda record_type: record_type.__name__)
@given(data=st.data())
@THOROUGH
def test_every_record_survives_single_object_encoding(record_type: type[Record], data: st.DataObject) -> None:
    """Whatever the models accept comes back equal from Avro, timestamps and numbers at their limits among it."""
    record = data.draw(records(record_type))
    assert decode_single_object(record_type, CODEC.encode(record)) == record


@given(request=records(LLMRequest))
@THOROUGH
def test_a_request_written_as_json_is_the_same_request(request: LLMRequest) -> None:
    """JSON and Avro are two forms of one contract: what one says, the other says."""
    assert decode_json(LLMRequest, request.model_dump_json().encode()) == request


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens", "cached_input_tokens"])
@pytest.mark.parametrize("count", [-1, 2**63])
def test_a_count_of_tokens_has_both_its_bounds(field: str, count: int) -> None:
    """Neither less than none, nor more than Avro can hold."""
    with pytest.raises(ValidationError):
        Usage.model_validate({field: count})


async def test_the_codec_decodes_what_it_encodes() -> None:
    """The codec that stages use goes through the same framing."""
    request = LLMRequest(request_id="r-1", messages=[{"role": "user", "content": "What is a sluice?"}])
    assert await CODEC.decode(LLMRequest, CODEC.encode(request)) == request
