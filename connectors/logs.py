"""Structured logs: one event a line on standard error, with ids, never with the text of a prompt or an answer."""

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from connectors.settings import LogSettings

FORBIDDEN_KEYS = frozenset(
    {"prompt", "messages", "content", "essay_a", "essay_b", "text", "answer", "api_key", "password", "token"}
)
"""Names under which content or secrets would travel. A slip is caught here, not in the log store."""

_CHATTY = {
    "aiokafka": "WARNING",
    "faust": "WARNING",
    "mode": "WARNING",
    "aiohttp.access": "WARNING",
    "httpx2": "WARNING",
    "httpcore2": "WARNING",
    # At level debug these log whole requests, and so prompts.
    "anthropic": "INFO",
    "openai": "INFO",
    "google_genai": "INFO",
}


def configure_logs(settings: LogSettings, *, role: str) -> None:
    """Sets up structlog, and sends the standard library's logging through the same renderer."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        drop_content,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for name, level in _CHATTY.items():
        logging.getLogger(name).setLevel(level)
    structlog.contextvars.bind_contextvars(role=role)


def drop_content(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replaces values under forbidden names by their size."""
    for key in FORBIDDEN_KEYS & event.keys():
        event[key] = f"[{len(str(event[key]))} characters not logged]"
    return event
