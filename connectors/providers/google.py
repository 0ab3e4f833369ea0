"""Google's Gemini API by the official SDK.

The SDK's own retries, function calls and continuations are off: each would be a request, and a price, that nobody
sees. Its HTTP client is ours (`google_client` says why).
"""

import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from google import genai
from google.genai import types
from pydantic import SecretStr

from connectors.providers.answer_draft import AnswerDraft, ErrorBodyError
from connectors.providers.api_key import api_key
from connectors.providers.base import Call, CallEvent, Text
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.google_answers import GoogleAnswer
from connectors.providers.google_client import GoogleClient, showing_responses_to
from connectors.providers.google_errors import EXCEPTIONS, failed
from connectors.providers.google_options import GoogleOptions
from connectors.providers.http_client import new_http_client
from connectors.providers.http_failures import CallFacts, not_sendable
from policy.catalogue import ProviderEntry
from schemas.attempt import Problem
from schemas.vocabulary import Role

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"
DEFAULT_KEY_VARIABLE = "GEMINI_API_KEY"
NO_KEY = SecretStr("no-key-needed")
"""For servers that ask for none: without any key the SDK looks for one in the environment."""

_MODEL = re.compile(r"(?:(?:models|tunedModels)/)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_ROLES = {Role.USER: "user", Role.ASSISTANT: "model"}
