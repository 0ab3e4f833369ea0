"""Settings: from the environment (`SLUICE_*`) and one TOML file, checked before anything connects.

Order, strongest first: environment, then the file named by SLUICE_CONFIG (or `sluice.toml` in the working folder),
then the defaults. Nested names are joined by two underscores: SLUICE_KAFKA__SASL_MECHANISM. Four names that people
already use are read as well: KAFKA_BOOTSTRAP, REDIS_URL, SCHEMA_REGISTRY_URL, SLUICE_STATE_DIR.
"""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from schemas.topics import MAX_REQUEST_BYTES, RETRY_DELAYS_SECONDS, Topics

CONFIG_ENVIRONMENT = "SLUICE_CONFIG"


class Section(BaseModel):
    """A group of settings. An unknown name is an error, so that a typing slip is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(Section):
    """Files in PEM. `ca_file` absent: the system's authorities. Both of certificate and key: mutual TLS."""

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password: SecretStr | None = None
    check_hostname: bool = True

    @model_validator(mode="after")
    def _certificate_and_key_together(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together: set both or neither")
        for path in (self.ca_file, self.certificate_file, self.key_file):
            if path is not None and not path.is_file():
                raise ValueError(f"{path}: no such file")
        return self


class KafkaSettings(Section):
    """How to reach the brokers. The same settings serve aiokafka and Faust."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    oauth_token_url: str | None = Field(default=None, description="client-credentials endpoint, OAUTHBEARER")
    oauth_scope: str | None = None
    tls: TlsSettings = TlsSettings()
    linger_ms: int = Field(default=0, ge=0, le=1000)
    max_sends_in_flight: int = Field(default=256, ge=1, le=4096)

    @model_validator(mode="after")
    def _sasl_is_complete(self) -> Self:
        if self.security_protocol.startswith("SASL") != (self.sasl_mechanism is not None):
            raise ValueError("sasl_mechanism goes with security_protocol SASL_PLAINTEXT or SASL_SSL")
        if self.sasl_mechanism is not None and not (self.sasl_username and self.sasl_password):
            raise ValueError("SASL needs sasl_username and sasl_password (for OAUTHBEARER: client id and secret)")
        if self.sasl_mechanism == "OAUTHBEARER" and not self.oauth_token_url:
            raise ValueError("OAUTHBEARER needs oauth_token_url")
        return self


class RedisSettings(Section):
    """How to reach Redis: `redis://` or `rediss://` (TLS), with a Sentinel or Cluster where there is one."""

    mode: Literal["single", "sentinel", "cluster"] = "single"
    username: str | None = None
    password: SecretStr | None = None
    sentinels: list[str] = Field(default_factory=list, description="host:port of each, with mode=sentinel")
    sentinel_service: str = "mymaster"
    sentinel_password: SecretStr | None = None
    tls: TlsSettings = TlsSettings()
    key_prefix: str = Field(default="sluice", pattern=r"^[A-Za-z0-9._:-]+$")
    shards: int = Field(default=1, ge=1, le=1024, description="hash tags that requests spread over; Cluster")
    timeout_seconds: float = Field(default=2.0, gt=0)
    max_connections: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _sentinels_where_needed(self) -> Self:
        if (self.mode == "sentinel") != bool(self.sentinels):
            raise ValueError("sentinels goes with mode=sentinel: list them as host:port")
        return self


class RegistrySettings(Section):
    """Schema registry. Without a URL records are single-object encoded."""

    auto_register: bool = Field(default=True, description="false: schemas must be there, and are only looked up")
    username: str | None = None
    password: SecretStr | None = None
    tls: TlsSettings = TlsSettings()


class AdmissionSettings(Section):
    """What may be outstanding at once, over all workers."""

    max_requests: int = Field(default=100_000, ge=1)
    max_bytes: int = Field(default=2 * 1024**3, ge=1)
    high_watermark: float = Field(default=0.8, gt=0, le=1)
    low_watermark: float = Field(default=0.6, gt=0, le=1)
    when_full: Literal["wait", "reject"] = Field(
        default="wait", description="wait: requests stay in Kafka; reject: they end with retry_after"
    )


class WorkerSettings(Section):
    """How a worker works. Times in seconds."""

    concurrency: int = Field(default=64, ge=1, le=2000, description="calls at once per lane process")
    intake_concurrency: int = Field(default=64, ge=1, le=2000)
    default_deadline_seconds: float = Field(default=4 * 3600, gt=0)
    lease_seconds: float = Field(default=15, ge=0.5)
    drain_seconds: float = Field(default=20, ge=0, description="for calls in flight, on SIGTERM")
    max_request_bytes: int = Field(default=MAX_REQUEST_BYTES, ge=1024)
    result_topics: list[str] = Field(default_factory=list, description="allow-list for result_topic")
    session_timeout_seconds: float = Field(default=30, ge=1)
    look_ahead_records: int = Field(
        default=20_000, ge=1, description="read ahead and put into a fair order, per lane process and priority"
    )
    look_ahead_bytes: int = Field(default=64 * 1024**2, ge=1024, description="the same, in bytes")


class RetrySettings(Section):
    """Calls that failed in a way that may pass. A wait is drawn from 0 to `base_seconds * factor ** retries`."""

    max_retries: int = Field(default=3, ge=0, le=20, description="after the first call; lost calls do not count")
    base_seconds: float = Field(default=2.0, gt=0, description="longest wait before the first retry")
    factor: float = Field(default=4.0, ge=1, description="by which the longest wait grows with each retry")
    max_seconds: float = Field(default=600.0, gt=0, description="longest drawn wait; Retry-After may ask for more")
    delays_seconds: list[int] = Field(
        default=list(RETRY_DELAYS_SECONDS), min_length=1, max_length=20, description="one delay topic for each"
    )

    @field_validator("delays_seconds")
    @classmethod
    def _ascending(cls, delays: list[int]) -> list[int]:
        if delays != sorted(set(delays)) or delays[0] < 1:
            raise ValueError("must be whole seconds, ascending, each once: for example [1, 5, 30]")
        return delays


class BridgeTlsSettings(Section):
    """TLS of the bridge's own port. Without a certificate it serves plain HTTP."""

    certificate_file: Path | None = Field(default=None, description="certificate and chain in PEM; with it, TLS")
    key_file: Path | None = Field(default=None, description="its key in PEM")
    key_password: SecretStr | None = Field(default=None, description="of an encrypted `key_file`")
    ca_file: Path | None = Field(default=None, description="clients need a certificate of one of these authorities")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together: set both or neither")
        if self.ca_file is not None and self.certificate_file is None:
            raise ValueError("ca_file needs certificate_file and key_file")
        for path in (self.certificate_file, self.key_file, self.ca_file):
            if path is not None and not path.is_file():
                raise ValueError(f"{path}: no such file")
        return self


class TicketSettings(Section):
    """Keys that clients' tickets (JWT) are verified with. Without any the bridge serves loopback only."""

    hs256_key: SecretStr | None = Field(default=None, description="shared secret of HS256 tickets, from 32 bytes")
    jwks_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="key set of RS256 tickets, fetched when a key is new, and every ten minutes",
    )
    jwks_file: Path | None = Field(default=None, description="the same from a file, read as often")
    issuer: str | None = Field(default=None, description="`iss` must be this, where set")
    audience: str | None = Field(default=None, description="`aud` must hold this, where set")
    max_seconds: float = Field(default=3600, gt=0, description="a ticket that is valid for longer is refused")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.hs256_key is not None and len(self.hs256_key.get_secret_value().encode()) < 32:
            raise ValueError("hs256_key: shorter than 32 bytes (RFC 7518, section 3.2)")
        if self.jwks_url is not None and self.jwks_file is not None:
            raise ValueError("jwks_url and jwks_file: set one of them")
        return self

    @property
    def are_asked_for(self) -> bool:
        return any((self.hs256_key, self.jwks_url, self.jwks_file))


class BridgeSettings(Section):
    """The WebSocket bridge and its page. Times in seconds."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    insecure_public: bool = Field(default=False, description="serve others than this machine, with no authentication")
    allow_all: bool = Field(default=False, description="without keys for tickets: everybody may follow everything")
    allowed_origins: list[str] = Field(default_factory=list, description="besides the page's own")
    tickets: TicketSettings = TicketSettings()
    tls: BridgeTlsSettings = BridgeTlsSettings()
    max_connections: int = Field(default=10_000, ge=1)
    max_connections_per_user: int = Field(default=50, ge=0, description="of one user's tickets; 0: no bound")
    max_connections_per_address: int = Field(default=0, ge=0, description="of one IP address; 0: no bound")
    max_subscriptions: int = Field(default=1_000, ge=1, description="per connection, each request id counted")
    commands_per_second: float = Field(default=50, gt=0, description="per connection; what is more is read later")
    authenticate_seconds: float = Field(default=10, gt=0, description="until a ticket has to come")
    idle_seconds: float = Field(default=900, ge=0, description="a connection that follows nothing; 0: for ever")
    position_seconds: float = Field(default=20, gt=0, description="until a quiet connection gets a newer resume token")
    send_buffer_events: int = Field(default=1_000, ge=16, description="per connection; then it is closed")
    remembered_requests: int = Field(default=20_000, ge=1, description="newest requests kept for snapshots")
    replay_seconds: float = Field(default=600, ge=0, description="how far back a starting bridge reads")
    replay_bytes: int = Field(default=64 * 1024**2, ge=1024, description="of what happened last, kept for resumes")
    resume_events: int = Field(default=10_000, ge=1, description="pushes that one resume may bring; else a gap")


class OpsSettings(Section):
    """Where /metrics, /healthz and /readyz are served. Port 0: any free one, said in the log."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)


class LogSettings(Section):
    """Structured logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = Field(default="auto", description="auto: console on a terminal")


class Settings(BaseSettings):
    """Everything that can be set. See `sluice config` for the values in force."""

    model_config = SettingsConfigDict(
        env_prefix="SLUICE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
    )

    kafka_bootstrap: str = Field(
        default="127.0.0.1:9092", validation_alias=AliasChoices("KAFKA_BOOTSTRAP", "kafka_bootstrap")
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"), validation_alias=AliasChoices("REDIS_URL", "redis_url")
    )
    schema_registry_url: str | None = Field(
        default=None, validation_alias=AliasChoices("SCHEMA_REGISTRY_URL", "schema_registry_url")
    )
    topic_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$", max_length=100)
    topic_partitions: int = Field(default=6, ge=1, le=1000)
    topic_replication: int = Field(default=-1, ge=-1, description="-1: the broker's default")
    providers_file: Path | None = Field(default=None, description="absent: the simulated provider alone")
    prices_file: Path | None = Field(
        default=None, description="prices of your own, which go before those that come with Sluice, model by model"
    )
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    registry: RegistrySettings = RegistrySettings()
    admission: AdmissionSettings = AdmissionSettings()
    worker: WorkerSettings = WorkerSettings()
    retry: RetrySettings = RetrySettings()
    bridge: BridgeSettings = BridgeSettings()
    ops: OpsSettings = OpsSettings()
    log: LogSettings = LogSettings()

    @property
    def intake_group(self) -> str:
        """The consumer group of intake: what it has committed tells whether the deployment ever ran."""
        return f"{self.topic_prefix}sluice.intake"

    def lane_group(self, provider: str) -> str:
        """The consumer group of a lane's workers."""
        return f"{self.topic_prefix}sluice.lane.{provider}"

    def control_group(self, part: str) -> str:
        """The consumer group of one part of the control role: delay, confirm or commands."""
        return f"{self.topic_prefix}sluice.control.{part}"

    @property
    def topics(self) -> Topics:
        return Topics(
            prefix=self.topic_prefix,
            partitions=self.topic_partitions,
            retry_delays_seconds=tuple(self.retry.delays_seconds),
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class names it
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class names it
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=config_file())


def config_file() -> Path:
    """The settings file: SLUICE_CONFIG, else `sluice.toml` here. It need not exist, unless it was named."""
    named = os.environ.get(CONFIG_ENVIRONMENT)
    path = Path(named) if named else Path("sluice.toml")
    if named and not path.is_file():
        raise FileNotFoundError(f"{CONFIG_ENVIRONMENT}={named}: no such file")
    return path
