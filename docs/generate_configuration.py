"""Writes docs/configuration.md from the settings models, and says whether it has drifted from them.

    .venv/bin/python -m docs.generate_configuration            write it
    .venv/bin/python -m docs.generate_configuration --check    write nothing; exit 1 where it differs

A setting's meaning is the description of its field; where the field has none, it stands here in MEANINGS. A setting
without a meaning, and a meaning without a setting, are errors. Options of providers are explained by their own models.
"""

import inspect
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from connectors.providers.registry import PROVIDER_TYPES
from connectors.settings import Settings
from policy.catalogue import Defaults, ProviderEntry, Timeouts
from policy.rules import BreakerRules, LimitRules, TenantRules

DOCUMENT = Path(__file__).with_name("configuration.md")

MEANINGS = {
    # settings
    "kafka_bootstrap": "brokers to begin with, `host:port`, several with commas",
    "redis_url": "`redis://host:port/database`, or `rediss://` for TLS; masked where it is shown",
    "schema_registry_url": "absent: single-object encoding, no registry",
    "topic_prefix": "in front of every topic, consumer group and Redis key: sets deployments apart in one cluster",
    "topic_partitions": "of each topic that `sluice topics create` creates; also the most workers a stage can use",
    "kafka.security_protocol": "how to talk to the brokers",
    "kafka.sasl_mechanism": "goes with `SASL_PLAINTEXT` and `SASL_SSL`",
    "kafka.sasl_username": "for OAUTHBEARER the client id",
    "kafka.sasl_password": "for OAUTHBEARER the client secret",
    "kafka.oauth_scope": "asked for with the token",
    "kafka.linger_ms": "how long a record may wait for others of its batch; above 0 each hop takes longer",
    "kafka.max_sends_in_flight": "per process; the next sends wait",
    "redis.mode": "one server, or a Sentinel or Cluster",
    "redis.username": "ACL user; goes before the one in the URL",
    "redis.password": "goes before the one in the URL",
    "redis.sentinel_service": "the master's name, with mode=sentinel",
    "redis.sentinel_password": "of the sentinels themselves",
    "redis.key_prefix": "in front of every key; an ACL user needs `~{<key_prefix>:*`",
    "redis.timeout_seconds": "for a connection, and for one step",
    "redis.max_connections": "per process",
    "registry.username": "HTTP basic authentication",
    "registry.password": "HTTP basic authentication",
    "admission.max_requests": "outstanding (admitted and not yet ended) over all workers",
    "admission.max_bytes": "of their records",
    "admission.high_watermark": "share of either maximum at which admission closes: requests wait in Kafka",
    "admission.low_watermark": "share at which it opens again",
    "worker.intake_concurrency": "records at once per intake process",
    "worker.default_deadline_seconds": "from submission, for requests without `deadline_at`",
    "worker.lease_seconds": "after a worker died, its calls may be made again when so long has passed",
    "worker.max_request_bytes": "a larger record is rejected",
    "worker.session_timeout_seconds": "Kafka takes a silent worker's partitions away after this long",
    "bridge.host": "other than loopback only with `insecure_public`",
    "bridge.port": "of the page and of WebSockets at /ws; 0: any free one, said in the log",
    "bridge.max_connections": "clients at once; the next is closed with 1013",
    "ops.host": "address of /metrics, /healthz and /readyz",
    "ops.port": "0: any free one, said in the log",
    "log.level": "lines below it are not written",
    **{
        f"{section}.tls.{name}": meaning
        for section in ("kafka", "redis", "registry")
        for name, meaning in {
            "ca_file": "authorities to trust, in PEM; absent: the system's",
            "certificate_file": "our certificate in PEM, for mutual TLS; together with `key_file`",
            "key_file": "its key in PEM",
            "key_password": "of an encrypted `key_file`",
            "check_hostname": "whether the server's certificate must name the host",
        }.items()
    },
    # providers.toml
    "defaults.provider": "for requests that name neither provider nor model; absent: the first of the file",
    "providers.<name>.type": "which connector serves it: " + ", ".join(f"`{name}`" for name in sorted(PROVIDER_TYPES)),
    "providers.<name>.models": "models that go here; an entry may end in `*`; the first is the default",
    "providers.<name>.default_model": "for requests that name no model; absent: the first of `models`",
    "providers.<name>.base_url": "absent: the provider's own",
    "providers.<name>.api_key_env": "NAME of the variable that holds the key; only the lane's worker needs it",
    "providers.<name>.local": "true: sensitive content may go here, for it does not leave your machines",
    "providers.<name>.concurrency": "calls at once per lane process; absent: `worker.concurrency`",
    "providers.<name>.timeouts.connect_seconds": "until connected",
    "providers.<name>.timeouts.first_token_seconds": "until the first piece, with streaming",
    "providers.<name>.timeouts.total_seconds": "of one call; a request's deadline shortens it",
}

INTRODUCTION = """\
# Configuration

<!-- Written by `python -m docs.generate_configuration` from connectors/settings.py; do not edit. -->

`sluice config` checks what is set and prints what is in force, secrets masked; exit code 2 says what is wrong.

- Strongest first: the environment, the file (`sluice.toml` in the working folder, or the one that `SLUICE_CONFIG`
  names), the defaults. The file has the names of the first column, with sections as tables: `[worker]`,
  `drain_seconds = 40`.
- Lists in the environment are JSON: `SLUICE_WORKER__RESULT_TOPICS='["team-a.results"]'`.
- An unknown name in the file is an error.
- Passwords and keys: prefer the environment, or a file that only the role may read.

Read beside the settings: `SLUICE_CONFIG`, `SLUICE_STATE_DIR` and `SLUICE_CACHE_DIR` (the local stack's data, and the
Kafka that it fetched), `OTEL_EXPORTER_OTLP_ENDPOINT` (spans are exported there, with the package
`opentelemetry-exporter-otlp-proto-http` installed), the keys that `providers.toml` names, and the usual proxy
variables.
"""

PROVIDERS = """\
# providers.toml

Which providers exist, and which models go to which. `providers_file` names it; without one there is the provider
`simulated` alone. A commented example that works: [providers.toml](../providers.toml). An error names the line.

A request goes to the provider that it pins; else to the first in the file that serves its model; else to the default.
Hard constraints come first in all three: `allowed_providers`, and `sensitivity` from `sensitive` up goes to
`local` providers alone.
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting. `variable` is its name in the environment, if it can be set there."""

    name: str
    variable: str | None
    default: str
    meaning: str


def main(arguments: list[str]) -> int:
    """The command. Returns the exit code."""
    text = document()
    if arguments == ["--check"]:
        if DOCUMENT.is_file() and DOCUMENT.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write("docs/configuration.md differs: run `python -m docs.generate_configuration`\n")
        return 1
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


def document() -> str:
    """The whole of docs/configuration.md."""
    used: set[str] = set()

    def table(model: type[BaseModel], prefix: str) -> list[Row]:
        return list(_rows(model, prefix, used, known_in_environment=False))

    settings = _sections(list(_rows(Settings, "", used)))
    providers = {
        "[defaults]": table(Defaults, "defaults."),
        "[providers.NAME]": table(ProviderEntry, "providers.<name>."),
        "[providers.NAME.timeouts]": table(Timeouts, "providers.<name>.timeouts."),
        "[providers.NAME.breaker]": table(BreakerRules, "providers.<name>.breaker."),
        '[providers.NAME.limits], and the same in .models."MODEL" and .tenants."TENANT" of it': table(
            LimitRules, "providers.<name>.limits."
        ),
        '[tenants."TENANT"]': table(TenantRules, "tenants.<name>."),
    }
    if left_over := MEANINGS.keys() - used:
        raise LookupError(f"MEANINGS describes what is no setting, or is described there: {sorted(left_over)}")
    parts = [INTRODUCTION]
    parts += [f"## {name}\n\n{_table(rows)}" for name, rows in settings.items()]
    parts.append(PROVIDERS)
    parts += [f"## {name}\n\n{_table(rows)}" for name, rows in providers.items()]
    parts += [_options(name, kind.options) for name, kind in sorted(PROVIDER_TYPES.items())]
    return "\n".join(parts)


def _options(type_name: str, model: type[BaseModel]) -> str:
    rows = [
        Row(name=name, variable=None, default=_default(field), meaning=_joined(field.description, _allowed(field)))
        for name, field in model.model_fields.items()
    ]
    family = [kind for kind in reversed(model.__mro__) if issubclass(kind, BaseModel) and kind is not BaseModel]
    explained = "\n\n".join(inspect.cleandoc(kind.__doc__) for kind in family if kind.__doc__)
    return f"## [providers.NAME.options] of type {type_name}\n\n{explained}\n\n{_table(rows)}"


def _sections(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by section, the settings without one first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        section = row.name.rpartition(".")[0]
        found.setdefault(f"[{section}]" if section else "Addresses and topics", []).append(row)
    return found


def _rows(model: type[BaseModel], prefix: str, used: set[str], *, known_in_environment: bool = True) -> Iterator[Row]:
    for name, field in model.model_fields.items():
        path = prefix + name
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            if known_in_environment:  # the tables of providers.toml are listed one by one
                yield from _rows(nested, f"{path}.", used)
            continue
        if nested == dict[str, Any]:
            continue  # the options of a provider, which have tables of their own
        meaning = field.description or MEANINGS.get(path)
        if meaning is None:
            raise LookupError(f"{path} has no meaning: describe the field, or add it to MEANINGS")
        if field.description is None:
            used.add(path)
        yield Row(
            name=path if known_in_environment else name,
            variable=_variable(path, field) if known_in_environment else None,
            default=_default(field),
            meaning=_joined(meaning, _allowed(field)),
        )


def _joined(*parts: str | None) -> str:
    return "; ".join(part for part in parts if part)


def _variable(path: str, field: FieldInfo) -> str:
    aliases = getattr(field.validation_alias, "choices", ())
    return next((str(alias) for alias in aliases if str(alias).isupper()), "SLUICE_" + path.replace(".", "__").upper())


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "(needed)"
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value != "" else '`""`'


def _allowed(field: FieldInfo) -> str:
    words = _literals(field.annotation)
    if words:
        return "one of " + ", ".join(f"`{word}`" for word in words)
    least = most = ""
    for rule in field.metadata:
        if isinstance(rule, annotated_types.Ge) and rule.ge != 0:
            least = f"from {rule.ge:,}"
        elif isinstance(rule, annotated_types.Le):
            most = f"up to {rule.le:,}"
    return " ".join(part for part in (least, most) if part)


def _literals(annotation: Any) -> tuple[str, ...]:
    origin = get_origin(annotation)
    if origin is Literal:
        return get_args(annotation)
    if origin in (Union, types.UnionType, Annotated):
        return next((found for part in get_args(annotation) if (found := _literals(part))), ())
    return ()


def _table(rows: list[Row]) -> str:
    has_variables = any(row.variable for row in rows)
    heading = ["setting", "environment", "default", "meaning"] if has_variables else ["setting", "default", "meaning"]
    lines = [heading, ["---"] * len(heading)]
    for row in rows:
        cells = [f"`{row.name}`", f"`{row.variable}`", row.default, row.meaning]
        lines.append(cells if has_variables else [cells[0], *cells[2:]])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
