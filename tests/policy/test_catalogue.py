import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.catalogue import SIMULATED_ONLY, CatalogueError, ProviderEntry, line_of, parse_catalogue
from policy.rules import BreakerRules, LimitRules, TenantRules

GOOD = """\
# two providers
[defaults]
provider = "cheap"

[providers.simulated]
type = "simulated"
models = ["reading-ease-1"]
local = true

[providers.simulated.options]
latency_ms = 5

[providers.cheap]
type = "openai"
models = [
  "small",
  "gpt-*",
]
base_url = "https://example.org/v1"
api_key_env = "CHEAP_KEY"

[providers.cheap.timeouts]
stall_seconds = 2.5

[providers.cheap.limits]
requests_per_minute = 600
concurrency = 40

[providers.cheap.limits.models."gpt-5*"]
tokens_per_minute = 30000

[providers.cheap.limits.tenants."*"]
concurrency = 4

[providers.cheap.breaker]
failures = 3
open_seconds = 20

[tenants.acme]
budget_usd_per_day = 25.5
at_limit = "reject"

[tenants."*"]
budget_usd_per_day = 1
"""


def refused(text: str) -> CatalogueError:
    with pytest.raises(CatalogueError) as caught:
        parse_catalogue(text, source="here.toml")
    return caught.value


def test_a_good_file_is_read() -> None:
    """Providers come in the file's order, with defaults for what is left out."""
    catalogue = parse_catalogue(GOOD)
    assert list(catalogue.providers) == ["simulated", "cheap"]
    assert catalogue.default_provider == "cheap"
    assert catalogue.providers["simulated"].options == {"latency_ms": 5}
    assert catalogue.providers["cheap"].timeouts.stall_seconds == 2.5
    assert catalogue.providers["cheap"].timeouts.connect_seconds == 5


def test_limits_breakers_and_budgets_are_read() -> None:
    """What is left out has its default; and the table of a name goes before that of all others."""
    catalogue = parse_catalogue(GOOD)
    cheap, simulated = catalogue.providers["cheap"], catalogue.providers["simulated"]
    assert (cheap.limits.requests_per_minute, cheap.limits.tokens_per_minute) == (600, None)
    assert cheap.limits.of_model("gpt-5-mini") == ("gpt-5*", LimitRules(tokens_per_minute=30_000))
    assert cheap.limits.of_model("small") is None
    assert cheap.limits.of_tenant("anybody") == LimitRules(concurrency=4)
    assert (cheap.breaker.failures, cheap.breaker.successes, cheap.breaker.max_open_seconds) == (3, 3, 600)
    assert simulated.limits.is_empty
    assert simulated.breaker == BreakerRules()
    assert catalogue.tenant("acme") == TenantRules(budget_usd_per_day=25.5, at_limit="reject")
    assert catalogue.tenant("another") == TenantRules(budget_usd_per_day=1)
    assert SIMULATED_ONLY.tenant("acme").budget_usd_per_day is None


def test_without_a_default_the_first_provider_is_it() -> None:
    """A file need not have a table of defaults."""
    assert parse_catalogue('[providers.one]\ntype="x"\nmodels=["m"]').default_provider == "one"


def test_without_a_file_nothing_costs_money() -> None:
    """The built-in catalogue has the simulated provider alone."""
    assert [entry.type for entry in SIMULATED_ONLY.providers.values()] == ["simulated"]


@pytest.mark.parametrize(
    ("model", "served"), [("small", True), ("gpt-5", True), ("gpt-", True), ("gpt", False), ("smaller", False)]
)
def test_models_by_name_and_by_pattern(model: str, served: bool) -> None:
    """A name fits exactly, a pattern by what stands before its star."""
    assert parse_catalogue(GOOD).providers["cheap"].serves(model) is served


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('type = "simulated"', "type = 7", 6, "valid string"),
        ('type = "simulated"', "", 5, "providers.simulated.type: is missing"),
        ("local = true", 'local = "false"', 8, "valid boolean"),
        ("local = true", "locale = true", 8, "did you mean local?"),
        ("local = true", "concurrency = 0", 8, "greater than or equal to 1"),
        ('models = ["reading-ease-1"]', "models = []", 7, "at least 1 item"),
        ('models = ["reading-ease-1"]', 'models = ["read*"]', 7, "may not be a pattern"),
        ('models = ["reading-ease-1"]', 'models = ["a", "b*c"]', 7, "providers.simulated.models.1"),
        ("local = true", 'default_model = "b"', 8, "must be one of models"),
        ('"small",', "5,", 15, "providers.cheap.models.0"),
        ("https://example.org/v1", "example.org", 19, "base_url"),
        ("https://example.org/v1", "https://me:secret@example.org/v1", 19, "user name or password"),
        ('"CHEAP_KEY"', '"sk-123"', 20, "api_key_env"),
        ("stall_seconds = 2.5", "stall_seconds = 0", 23, "greater than 0"),
        ("stall_seconds = 2.5", "stall_seconds = inf", 23, "finite number"),
        ("stall_seconds", "stal_seconds", 23, "did you mean stall_seconds?"),
        ('provider = "cheap"', 'provider = "chepa"', 3, "no provider named chepa"),
        ("[defaults]", "[default]", 2, "did you mean defaults?"),
        ("requests_per_minute = 600", "requests_per_minute = 0", 26, "greater than or equal to 1"),
        ("requests_per_minute = 600", "request_per_minute = 1", 26, "did you mean requests_per_minute?"),
        ('models."gpt-5*"', 'models."gtp-5"', 29, "gtp-5 is not served here; take it out, or add it to models"),
        ('models."gpt-5*"', 'models."gpt-*-mini"', 29, "providers.cheap.limits.models.gpt-*-mini"),
        ('tenants."*"]\nconcurrency', 'tenants."a*"]\nconcurrency', 32, "providers.cheap.limits.tenants.a*"),
        ("open_seconds = 20", "open_seconds = 2000", 35, "max_open_seconds: is less than open_seconds; set it"),
        ("failures = 3", "failures = 3\nfailure_rate = 1.5", 37, "less than or equal to 1"),
        ('at_limit = "reject"', 'at_limit = "refuse"', 41, "'wait' or 'reject'"),
        ("budget_usd_per_day = 25.5", 'budget_usd_per_day = "25"', 40, "valid number"),
        ("[tenants.acme]", "[tenant.acme]", 39, "did you mean tenants?"),
        ("[providers.cheap]", "[providers.Cheap]", 13, "providers.Cheap"),
        ("[providers.cheap]", '[providers."a.b"]', 13, "providers.a.b"),
        ("[providers.cheap]", "[providers.cheap", 13, "Expected ']'"),
        ('type = "openai"', 'type = "openai"\ntype = "openai"', 15, "overwrite"),
    ],
)
def test_an_error_names_the_line(old: str, new: str, line: int, said: str) -> None:
    """Whatever is wrong, the message leads to the line and says what is wrong there."""
    error = refused(GOOD.replace(old, new, 1))
    assert str(error).startswith(f"here.toml:{line}: ")
    assert said in str(error)


def test_an_empty_file_is_an_error() -> None:
    """A deployment needs at least one provider."""
    assert "providers: is missing" in str(refused(""))


def test_a_misspelt_table_is_named_rather_than_what_is_missing_for_it() -> None:
    """`[provider.x]` leaves `providers` missing, and is the line to change."""
    error = refused('\n[provider.x]\ntype = "simulated"\nmodels = ["m"]\n')
    assert (error.line, error.where) == (2, "provider")


def test_an_error_never_shows_the_value() -> None:
    """A key that was put into the file by mistake is not repeated in the message."""
    assert "sk-" not in str(refused(GOOD.replace('"CHEAP_KEY"', '"sk-123"')))
    assert "secret" not in str(refused(GOOD.replace("https://", "https://me:secret@")))


@given(
    st.lists(
        st.sampled_from(["[a]", "[a.b]", '[a."b.c"]', "x = 1", "b.x = 1", "[[a]]", "# a = 1", "", "'y' = 2"]),
        max_size=8,
    ),
    st.lists(st.sampled_from(["a", "b", "b.c", "x", "y"]), max_size=3),
)
def test_a_line_is_always_inside_the_text(lines: list[str], path: list[str]) -> None:
    """Looking for a place never fails, and never leads outside."""
    found = line_of("\n".join(lines), path)
    assert found is None or 1 <= found <= len(lines)


def test_an_entry_takes_its_first_model_as_default() -> None:
    """`default_model` is there for lists that begin with a pattern."""
    assert ProviderEntry(type="x", models=["a", "b"]).model == "a"
    assert ProviderEntry(type="x", models=["a*", "b"], default_model="ab").model == "ab"


def test_the_example_for_operators_is_read() -> None:
    """The tables of docs/operations.md are what this reads."""
    document = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", document, flags=re.DOTALL)
    catalogue = parse_catalogue('[providers.openai]\ntype = "openai"\nmodels = ["gpt-5.4-mini"]\n' + example)
    assert catalogue.providers["openai"].breaker == BreakerRules()
    assert catalogue.tenant("acme").budget_usd_per_day == 25
