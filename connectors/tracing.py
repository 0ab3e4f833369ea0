"""W3C trace context through record headers, by OpenTelemetry. Spans leave the process only where an exporter is set.

With OTEL_EXPORTER_OTLP_ENDPOINT in the environment and the exporter package installed, spans are exported; else they
are not recorded, and ids are still made and handed on, so that a trace of upstream services does not break here.
"""

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from schemas.envelope import Header, Headers, header

_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_propagator = TraceContextTextMapPropagator()


def configure_tracing(role: str) -> None:
    """Once per process, before the first span."""
    exporting = bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"sluice-{role}"}),
        sampler=ParentBased(root=ALWAYS_ON if exporting else ALWAYS_OFF),
    )
    if exporting:
        provider.add_span_processor(BatchSpanProcessor(importlib.import_module(_EXPORTER).OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def processing_span(
    name: str, incoming: Headers, attributes: Mapping[str, AttributeValue], *, is_linked: bool = False
) -> Iterator[list[Header]]:
    """A span for the work on one record, child of the record's context; yields the headers for what it sends.

    `is_linked`: the work is another try, so its span begins a trace of its own and links to the one before.
    """
    carrier = {key: value for key in ("traceparent", "tracestate") if (value := header(incoming, key)) is not None}
    context = _propagator.extract(carrier)
    links = None
    if is_linked:
        links, context = [trace.Link(trace.get_current_span(context).get_span_context())], Context()
    tracer = trace.get_tracer("sluice")
    with tracer.start_as_current_span(
        name, context=context, kind=SpanKind.CONSUMER, attributes=attributes, links=links
    ):
        yield outgoing()


def outgoing() -> list[Header]:
    """traceparent and tracestate of the current span, as record headers."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return [(key, value.encode()) for key, value in carrier.items()]
