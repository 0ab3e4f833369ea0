"""The contract as an AsyncAPI 3.0 document: which topics there are, and what a record of each holds.

Generated from the record models and from `schemas.topics`. Operations are told from the point of view of Sluice:
it receives requests and sends results.
"""

from typing import Any

from schemas.attempt import Attempt
from schemas.avro_schemas import generated_schema
from schemas.base import ID_PATTERN, Record
from schemas.command import Command
from schemas.dead_letter import DeadLetterMark
from schemas.delta import Delta
from schemas.envelope import AVRO_CONTENT_TYPE, JSON_CONTENT_TYPE
from schemas.lane_report import LaneReport
from schemas.request import LLMRequest
from schemas.result import LLMResult
from schemas.status import StatusEvent
from schemas.task import LaneTask
from schemas.topics import Topics, TopicSpec, delay_text
from schemas.vocabulary import Priority

Json = dict[str, Any]

CONTRACT_VERSION = "1.0.0"
"""Its first number is that of the Avro namespace `sluice.v1`: a change that breaks readers gives both a new one."""

_ASYNCAPI_VERSION = "3.0.0"
_KAFKA_BINDING_VERSION = "0.5.0"
# The newest Avro version that AsyncAPI 3.0 gives a name.
_AVRO_FORMAT = "application/vnd.apache.avro+json;version=1.9.0"
_JSON_SCHEMA_FORMAT = "application/schema+json;version=draft-07"
_BYTES_CONTENT_TYPE = "application/octet-stream"

_PROVIDER = "{provider}"
_RAW_REQUEST = "RawRequest"
_JSON_REQUEST = "LLMRequestJson"


def document() -> Json:
    """The whole document, for topics without a prefix."""
    topics = Topics()
    specs = {spec.name: spec for spec in topics.specs([_PROVIDER])}
    delays = list(topics.retries)
    records: tuple[type[Record], ...] = (
        LLMRequest,
        LaneTask,
        LLMResult,
        StatusEvent,
        Delta,
        Attempt,
        Command,
        LaneReport,
        DeadLetterMark,
    )
    return {
        "asyncapi": _ASYNCAPI_VERSION,
        "info": {
            "title": "Sluice",
            "version": CONTRACT_VERSION,
            "description": (
                "Durable, governed LLM calls over Kafka. The key of every record is its request_id. Values are Avro: "
                "single-object encoding by default, the Confluent wire format where a schema registry is configured. "
                f"Requests may be JSON as well, with the header content-type: {JSON_CONTENT_TYPE}."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": AVRO_CONTENT_TYPE,
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "With TLS, SASL or both where the deployment asks for it.",
                "variables": {"bootstrap": {"default": "127.0.0.1:9092", "description": "KAFKA_BOOTSTRAP"}},
            }
        },
        "channels": {
            "requests": _channel(specs[topics.requests], [LLMRequest.__name__, _JSON_REQUEST]),
            "lane": _channel(specs[topics.lane(_PROVIDER, Priority.NORMAL)], [LaneTask.__name__])
            | {
                "address": f"llm.lane.{_PROVIDER}.{{priority}}",
                "description": "The lane of one provider, by priority.",
                "parameters": {
                    "provider": {"description": "The name of a provider in providers.toml."},
                    "priority": {"enum": [str(priority) for priority in Priority]},
                },
            },
            "retry": _channel(specs[topics.retry(delays[0])], [LaneTask.__name__])
            | {
                "address": "llm.retry.{delay}",
                "description": "Tasks that wait this long before they go on.",
                "parameters": {"delay": {"enum": [delay_text(delay) for delay in delays]}},
            },
            "results": _channel(specs[topics.results], [LLMResult.__name__]),
            "status": _channel(specs[topics.status], [StatusEvent.__name__]),
            "deltas": _channel(specs[topics.deltas], [Delta.__name__]),
            "attempts": _channel(specs[topics.attempts], [Attempt.__name__]),
            "deadLetters": _channel(specs[topics.dead_letters], [_RAW_REQUEST]),
            "deadLetterMarks": _channel(specs[topics.dead_letter_marks], [DeadLetterMark.__name__]),
            "commands": _channel(specs[topics.commands], [Command.__name__]),
            "laneReports": _channel(specs[topics.lane_reports], [LaneReport.__name__]),
        },
        "operations": {
            "receiveRequests": _operation("receive", "requests", "Takes a request, and answers for it from then on."),
            "sendLaneTasks": _operation("send", "lane", "Puts an admitted request on the lane of one provider."),
            "receiveLaneTasks": _operation("receive", "lane", "Takes a task from a lane and calls the provider."),
            "sendResults": _operation("send", "results", "Publishes the end of a request, whatever it is."),
            "sendStatus": _operation("send", "status", "Announces each change of a request's state."),
            "sendDeltas": _operation("send", "deltas", "Publishes an answer as it arrives, where asked to."),
            "sendAttempts": _operation("send", "attempts", "Records one call of a provider."),
            "sendRetries": _operation("send", "retry", "Sets a task aside until its next call is due."),
            "receiveRetries": _operation("receive", "retry", "Puts a task that has waited back on its lane."),
            "receiveCommands": _operation("receive", "commands", "Takes a cancellation."),
            "sendLaneReports": _operation("send", "laneReports", "Tells how a worker of a lane fares."),
            "sendDeadLetterMarks": _operation("send", "deadLetterMarks", "Notes what became of a dead letter."),
            "sendDeadLetters": _operation("send", "deadLetters", "Sets aside a request that could not pass."),
        },
        "components": {
            "messages": {record.__name__: _avro_message(record) for record in records}
            | {_JSON_REQUEST: _json_request(), _RAW_REQUEST: _raw_request()},
            "messageTraits": {"record": _record_trait(), "anyRecord": _any_record_trait()},
            "schemas": _json_schemas(),
        },
    }


def _channel(spec: TopicSpec, messages: list[str]) -> Json:
    return {
        "address": spec.name,
        "description": spec.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "partitions": spec.partitions,
                "topicConfiguration": {
                    "cleanup.policy": spec.cleanup.split(","),
                    "retention.ms": spec.retention_ms,
                    "max.message.bytes": spec.max_message_bytes,
                },
                "bindingVersion": _KAFKA_BINDING_VERSION,
            }
        },
    }


def _operation(action: str, channel: str, summary: str) -> Json:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _avro_message(record: type[Record]) -> Json:
    schema = generated_schema(record)
    # A request comes from outside: nothing is asked of its headers.
    trait = "anyRecord" if record is LLMRequest else "record"
    return {
        "name": record.__name__,
        "summary": schema["doc"],
        "contentType": AVRO_CONTENT_TYPE,
        "traits": [{"$ref": f"#/components/messageTraits/{trait}"}],
        "payload": {"schemaFormat": _AVRO_FORMAT, "schema": schema},
    }


def _json_request() -> Json:
    return {
        "name": _JSON_REQUEST,
        "summary": "The same request as JSON, so that a shell can produce one.",
        "contentType": JSON_CONTENT_TYPE,
        "traits": [{"$ref": "#/components/messageTraits/anyRecord"}],
        "payload": {
            "schemaFormat": _JSON_SCHEMA_FORMAT,
            "schema": {"$ref": f"#/components/schemas/{LLMRequest.__name__}"},
        },
    }


def _raw_request() -> Json:
    return {
        "name": _RAW_REQUEST,
        "summary": "Key, value and headers as they came in, with headers added that say where from and why.",
        "contentType": _BYTES_CONTENT_TYPE,
        "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
        "payload": {"description": "The bytes that came in, unchanged."},
        "bindings": _key_binding({"description": "The key that came in, unchanged."}),
    }


def _record_trait() -> Json:
    return {
        "headers": {"$ref": "#/components/schemas/RecordHeaders"},
        "correlationId": {"location": "$message.header#/ce_correlationid"},
        "bindings": _key_binding({"type": "string", "pattern": ID_PATTERN, "description": "The request_id."}),
    }


def _any_record_trait() -> Json:
    return _record_trait() | {"headers": {"$ref": "#/components/schemas/RequestHeaders"}}


def _key_binding(key: Json) -> Json:
    return {"kafka": {"key": key, "bindingVersion": _KAFKA_BINDING_VERSION}}


def _json_schemas() -> Json:
    request = LLMRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = request.pop("$defs")
    always = ["ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time", "ce_partitionkey", "content-type"]
    return {
        "RecordHeaders": {
            "type": "object",
            "description": "CloudEvents 1.0 in Kafka's binary mode, and W3C trace context. All values are UTF-8 text.",
            "required": always,
            "properties": _envelope_headers(),
        },
        "RequestHeaders": {
            "type": "object",
            "description": "All may be absent. Without content-type the value's first bytes tell Avro from JSON.",
            "properties": _envelope_headers() | _redrive_headers(),
        },
        "DeadLetterHeaders": {
            "type": "object",
            "description": "Added to the headers that came in; those of an earlier dead letter are replaced.",
            "required": ["kafka_dlt-original-topic", "kafka_dlt-exception-message", "sluice_dlt-category"],
            "properties": _dead_letter_headers(),
        },
        **parts,
        LLMRequest.__name__: request,
    }


def _envelope_headers() -> Json:
    text, moment = {"type": "string"}, {"type": "string", "format": "date-time"}
    return {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_type": text,
        "ce_source": text | {"format": "uri-reference"},
        "ce_id": text | {"description": "A repeat of a record has the same id, so that readers can drop it."},
        "ce_time": moment,
        "ce_partitionkey": text | {"description": "The record's key."},
        "content-type": text | {"description": f"{AVRO_CONTENT_TYPE}, or {JSON_CONTENT_TYPE} on requests."},
        "ce_correlationid": text,
        "ce_causationid": text | {"description": "The ce_id of the record that led to this one."},
        "ce_sequence": text | {"pattern": "^[0-9]+$"},
        "ce_expirytime": moment,
        "ce_tenantid": text,
        "ce_model": text,
        "ce_state": text | {"description": "On results: how the request ended."},
        "traceparent": text | {"description": "W3C Trace Context."},
        "tracestate": text,
    }


def _redrive_headers() -> Json:
    number = {"type": "string", "pattern": "^[0-9]+$"}
    return {
        "sluice_redrive-count": number | {"description": "How often a request was redriven from the dead letters."},
        "sluice_redrive-state-version": number,
        "sluice_redrive-attempt": number,
    }


def _dead_letter_headers() -> Json:
    text, number = {"type": "string"}, {"type": "string", "pattern": "^[0-9]+$"}
    return {
        "kafka_dlt-original-topic": text,
        "kafka_dlt-original-partition": number,
        "kafka_dlt-original-offset": number,
        "kafka_dlt-original-timestamp": number | {"description": "Milliseconds since 1970."},
        "kafka_dlt-exception-fqcn": text,
        "kafka_dlt-exception-message": text,
        "sluice_dlt-category": text | {"description": "A word of FailureCategory."},
        "sluice_dlt-field": text | {"description": "The field at fault, as a dotted path."},
        "sluice_dlt-request-id": text,
        "sluice_dlt-tenant-id": text,
        "sluice_dlt-state-version": number,
        "sluice_dlt-attempt": number,
        "sluice_dlt-provider": text,
        "sluice_dlt-model": text,
        "sluice_dlt-redrive-count": number,
    }
