"""Keys and prompts go to the provider, and nowhere else. And nothing else goes to the provider."""

import logging
import warnings
from collections.abc import Iterator

import httpx2
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from connectors import logs
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.registry import build_provider
from connectors.settings import LogSettings
from policy.catalogue import ProviderEntry
from tests.providers.calls import QUESTION, a_call, answer_of, events_of, failure_of
from tests.providers.contract.adapters import ADAPTERS, KEY, KEY_VARIABLE, Adapter
from tests.providers.contract.trial import Trial, provider_at
from tests.support.fault_wire import ANSWER

WITH_A_SERVER = [pytest.param(adapter, id=adapter.type) for adapter in ADAPTERS if adapter.wire]
TALKATIVE = ("good", "status-500", "bad-chunk", "error-event", "html", "echo-prompt", "echo-key", "reset-mid-stream")
READ_BY_SDKS = {
    "ANTHROPIC_API_KEY": "leak-key",
    "ANTHROPIC_AUTH_TOKEN": "leak-token",
    "ANTHROPIC_BASE_URL": "http://leak.invalid",
    "ANTHROPIC_CUSTOM_HEADERS": "X-Custom: leak-header\nX-Api-Key: leak-key",
    "GEMINI_API_KEY": "leak-key",
    "GOOGLE_API_KEY": "leak-key",
    "GOOGLE_CLOUD_LOCATION": "leak-location",
    "GOOGLE_CLOUD_PROJECT": "leak-project",
    "GOOGLE_GEMINI_BASE_URL": "http://leak.invalid",
    "GOOGLE_GENAI_API_VERSION": "leak-version",
    "GOOGLE_GENAI_USE_ENTERPRISE": "true",
    "GOOGLE_GENAI_USE_VERTEXAI": "true",
    "OPENAI_API_KEY": "leak-key",
    "OPENAI_BASE_URL": "http://leak.invalid",
    "OPENAI_CUSTOM_HEADERS": "X-Custom: leak-header",
    "OPENAI_ORG_ID": "leak-organization",
    "OPENAI_PROJECT_ID": "leak-project",
    "AZURE_OPENAI_API_KEY": "leak-key",
    "AZURE_OPENAI_AD_TOKEN": "leak-token",
    "OPENROUTER_API_KEY": "leak-key",
}


@pytest.fixture
def debug_logs(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """Everything that a worker logs at level debug, as it would be on standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure_logs(LogSettings(level="debug", format="json"), role="test")
    yield capsys
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


async def test_logs_at_level_debug_hold_neither_key_nor_text(
    tried: Trial, debug_logs: pytest.CaptureFixture[str]
) -> None:
    """SDKs log whole requests at that level, if they are let."""
    logging.getLogger("tests").debug("a line")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for name in TALKATIVE:
            await events_of(tried.provider, a_call(model=name, stream=True))
        await events_of(tried.provider, a_call(model="good", stream=False))
    said = "".join(debug_logs.readouterr())
    assert "a line" in said
    assert not any(secret in said for secret in (KEY, QUESTION, ANSWER))


async def test_spans_of_sdks_hold_neither_key_nor_text(
    tried: Trial, http_client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a worker exports its spans, an SDK that makes some of its own says nothing in them."""
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", tracers)
    with trace.get_tracer("tests").start_as_current_span("ours"):
        provider = provider_at(tried.server.root, tried.adapter, http_client=http_client)
        for name in TALKATIVE:
            await events_of(provider, a_call(model=name, stream=True))
        await events_of(provider, a_call(model="good"))
        await provider.close()
    said = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "ours" in said
    assert not any(secret in said for secret in (KEY, QUESTION, ANSWER))


async def test_the_key_is_in_no_representation(tried: Trial) -> None:
    """Neither the provider nor anything that it holds prints the key."""
    assert KEY not in repr(tried.provider)
    assert KEY not in repr(vars(tried.provider))


@pytest.mark.parametrize(("name", "said"), [("echo-prompt", "HTTP 400"), ("echo-key", "HTTP 403")])
async def test_an_echo_stays_out_of_the_message(tried: Trial, name: str, said: str) -> None:
    """A server that quotes the request in its error puts neither prompt nor key into our records."""
    failed = await failure_of(tried.provider, a_call(model=name))
    assert failed.problem.message == said


async def test_a_short_echo_stays_out_as_well(tried: Trial) -> None:
    """A prompt of a few words is quoted no more than a long one."""
    prompt = a_call().messages[0].model_copy(update={"content": "my tax number"})
    failed = await failure_of(tried.provider, a_call(model="echo-prompt", messages=(prompt,)))
    assert "tax" not in repr(failed)


async def test_the_key_goes_where_the_api_has_it(tried: Trial) -> None:
    """The key of the variable that is named, and once."""
    await answer_of(tried.provider, a_call(model="good"))
    (exchange,) = tried.server.exchanges
    assert sum(KEY in value for value in exchange.headers.values()) == 1
    assert KEY not in exchange.path
    assert KEY not in str(exchange.body)


async def test_nothing_of_the_environment_is_sent(
    tried: Trial, http_client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys, accounts, headers and addresses that an SDK reads by itself go to nobody."""
    for name, value in READ_BY_SDKS.items():
        monkeypatch.setenv(name, value)
    provider = provider_at(tried.server.root, tried.adapter, http_client=http_client)
    await answer_of(provider, a_call(model="good"))
    await answer_of(provider, a_call(model="good", stream=True))
    await provider.close()
    exchanges = tried.server.exchanges
    assert len(exchanges) == 2
    assert not any("leak" in f"{exchange.path} {exchange.headers} {exchange.body}" for exchange in exchanges)


@pytest.mark.parametrize("adapter", WITH_A_SERVER)
@pytest.mark.parametrize("value", ["", "  ", "sk-with space", "sk-with\nnewline", "sk-ünïcode"])
def test_a_key_that_cannot_be_one_is_told_and_not_shown(adapter: Adapter, value: str) -> None:
    """The message names the variable, never what it holds."""
    entry = ProviderEntry.model_validate(adapter.full_entry("http://127.0.0.1:9"))
    with pytest.raises(ProviderConfigurationError, match=KEY_VARIABLE) as caught:
        build_provider("tried", entry, environ={KEY_VARIABLE: value})
    assert "sk-" not in str(caught.value)
