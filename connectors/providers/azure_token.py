"""Tokens of Microsoft Entra ID in place of a key, by Azure's own identity library, which keeps and renews them."""

from azure.core.exceptions import AzureError
from azure.identity.aio import DefaultAzureCredential, get_bearer_token_provider

from connectors.providers.openai_errors import CredentialError

_NONE_YET = "no-token-yet"


class EntraToken:
    """Called before each request. The identity is the process's: managed, workload, or of a developer's login."""

    def __init__(self, *, scope: str) -> None:
        self._credential = DefaultAzureCredential()
        self._ask = get_bearer_token_provider(self._credential, scope)
        self._last = _NONE_YET

    async def __call__(self) -> str:
        try:
            self._last = await self._ask()
        except (AzureError, ValueError) as error:
            # The library's message names tenants and accounts, in many lines.
            raise CredentialError(f"no token could be had from Entra ID ({type(error).__name__})") from error
        return self._last

    def last(self) -> str:
        """The newest token, which may be quoted nowhere."""
        return self._last

    async def close(self) -> None:
        await self._credential.close()
