"""API keys: only ever from the environment, by the name of a variable, and masked from then on."""

from collections.abc import Mapping

from pydantic import SecretStr

from connectors.providers.errors import ProviderConfigurationError


def api_key(provider: str, variable: str, environ: Mapping[str, str]) -> SecretStr:
    """The key in a variable. Raises `ProviderConfigurationError` for one that is not there or cannot be a key."""
    key = environ.get(variable, "").strip()
    if not key:
        raise ProviderConfigurationError(
            provider, f"the environment variable {variable} is not set; it must hold the API key"
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ProviderConfigurationError(
            provider, f"the environment variable {variable} holds characters that no API key has"
        )
    return SecretStr(key)
