"""What keeps a provider from being built at all. What happens in its calls is a `Failed`, never an exception.

ProviderConfigurationError      .provider: its name in providers.toml
'- MissingExtraError            .extra: the optional dependency that its type needs
"""


class ProviderConfigurationError(Exception):
    """A provider cannot be built as it is configured. The message says what to change, and holds no secret."""

    def __init__(self, provider: str, what: str) -> None:
        super().__init__(f"provider {provider}: {what}")
        self.provider = provider


class MissingExtraError(ProviderConfigurationError):
    """The packages that a provider type needs are not installed."""

    def __init__(self, provider: str, *, extra: str, package: str) -> None:
        super().__init__(
            provider,
            f"the package {package} is not installed; run: pip install 'sluice[{extra}]' (or: uv sync --extra {extra})",
        )
        self.extra = extra
