"""docker-compose.yml is closed to the outside, starts in order, and is watched."""

from pathlib import Path

import pytest
import yaml

from sluice.stack import kafka_docker, redis_docker
from sluice.stack.kafka_settings import broker_settings
from sluice.stack.redis_settings import REDIS_OPTIONS
from sluice.stack.state import StateDir
from tests.deploy.compose import ROOT, compose_file, environment, is_one_shot, roles, services
from tests.deploy.dockerfile import stages

SERVICES = services()
ROLES = roles()
# Where the root file system cannot be read-only, and why not.
WRITABLE = {"kafka": "the image writes its configuration to /opt/kafka/config"}
# Who may reach beyond the machine, or publishes a port, for which Docker needs such a network.
OUTSIDE = {"kafka", "lane-openai", "bridge", "prometheus"}
every_service = pytest.mark.parametrize("name", SERVICES)


def test_a_variable_without_a_default_is_refused() -> None:
    """The reader of these tests does not take for granted what Compose would leave empty."""
    with pytest.raises(ValueError, match="without a default"):
        compose_file('services: {a: {image: "${IMAGE}"}}')


def test_every_published_port_is_on_this_machine_alone() -> None:
    """Nothing that is deployed by default can be reached from another machine."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", [name for name in ROLES if name == "intake" or name.startswith("lane-")])
def test_workers_can_be_scaled(name: str) -> None:
    """A second replica collides with nothing of the first."""
    assert not {"container_name", "ports", "hostname", "volumes"} & ROLES[name].keys()


@every_service
def test_it_is_watched_or_ends_by_itself(name: str) -> None:
    """A service that stays has a health check, and is started again; our roles are asked whether they work."""
    service = SERVICES[name]
    if is_one_shot(service):
        assert service["healthcheck"] == {"disable": True}
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    if name in ROLES:
        assert service["healthcheck"]["test"] == ["CMD", "python", "/opt/sluice/probe.py", "/readyz"]


@pytest.mark.parametrize("name", ROLES)
def test_it_waits_for_what_it_needs(name: str) -> None:
    """Kafka and Redis are healthy, and the topics are there, before a role starts."""
    conditions = {on: how["condition"] for on, how in ROLES[name]["depends_on"].items()}
    needed = {"kafka": "service_healthy"}
    if name != "topics":
        needed["topics"] = "service_completed_successfully"
    if name not in {"topics", "bridge"}:
        needed["redis"] = "service_healthy"
    assert conditions == needed


@every_service
def test_it_may_do_no_more_than_it_needs(name: str) -> None:
    """No capabilities, no way to gain any, a read-only root, bounded memory, processes and logs."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert bool(service.get("read_only")) == (name not in WRITABLE)
    assert {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()
    assert service["logging"] == {"driver": "local"}
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "userns_mode", "devices"} & service.keys()


def test_only_what_has_to_can_reach_beyond_the_machine() -> None:
    """Everything else is on a network without a way out."""
    assert compose_file()["networks"]["inside"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if service["networks"] != ["inside"]} == OUTSIDE


def test_secrets_come_from_outside_and_go_to_one_service_only() -> None:
    """The file holds no secret, and the key of a provider is given to its lane alone."""
    secret_names = [
        (name, variable)
        for name, service in SERVICES.items()
        for variable in service.get("environment", {})
        if any(word in variable for word in ("KEY", "SECRET", "TOKEN", "PASSWORD"))
    ]
    assert secret_names == [("lane-openai", "OPENAI_API_KEY")]
    assert SERVICES["lane-openai"]["environment"]["OPENAI_API_KEY"] is None


def test_one_service_builds_the_image_and_all_others_wait_for_it() -> None:
    """Builds of the same tag by several services at once fail in Docker's containerd store."""
    assert [name for name in ROLES if "build" in ROLES[name]] == ["topics"]


def test_kafka_and_redis_are_those_of_the_local_stack(tmp_path: Path) -> None:
    """What was tested is what is deployed: the same images."""
    state = StateDir(tmp_path)
    assert SERVICES["kafka"]["image"] == kafka_docker.container_request(state, 9092).image
    assert SERVICES["redis"]["image"] == redis_docker.container_request(state, 6379).image


def test_redis_keeps_and_forgets_as_in_the_local_stack() -> None:
    """The options that durability and bounds hang on are the same, and the data is in a volume."""
    assert SERVICES["redis"]["command"] == ["redis-server", *REDIS_OPTIONS]
    assert SERVICES["redis"]["volumes"] == ["redis-data:/data"]


def test_kafka_has_the_settings_of_a_single_node() -> None:
    """Replication that one node can give, and no topic by accident, as in the local stack; its data in a volume."""
    local = broker_settings(listen_on="0.0.0.0", client_port=9092, controller_port=9093, data_dir="/data")  # noqa: S104
    matter = {
        name: value for name, value in local.items() if name.endswith((".factor", ".min.isr", ".create.topics.enable"))
    }
    deployed = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment(SERVICES["kafka"]).items()
    }
    assert len(matter) == 6
    assert matter.items() <= deployed.items()
    (volume,) = SERVICES["kafka"]["volumes"]
    assert deployed["log.dirs"].startswith(volume.partition(":")[2] + "/")


def test_kafka_tells_each_side_the_address_by_which_it_came() -> None:
    """Containers are sent to `kafka`, clients of this machine to the published port of 127.0.0.1."""
    given = environment(SERVICES["kafka"])
    advertised = dict(item.split("://") for item in given["KAFKA_ADVERTISED_LISTENERS"].split(","))
    listening = dict(item.split("://") for item in given["KAFKA_LISTENERS"].split(","))
    (published,) = SERVICES["kafka"]["ports"]
    host_address, _, container_port = published.rpartition(":")
    assert advertised == {"INSIDE": "kafka:9092", "HOST": host_address}
    assert listening["HOST"].endswith(f":{container_port}")
    assert listening["CONTROLLER"].startswith("127.0.0.1:")


def test_prometheus_asks_every_role() -> None:
    """Its targets are the services that stay, on the port that the image serves its operators on."""
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text(encoding="utf-8"))
    ((found,),) = [job["dns_sd_configs"] for job in config["scrape_configs"]]
    assert set(found["names"]) == {name for name in ROLES if not is_one_shot(ROLES[name])}
    assert found["port"] == int(stages()[-1].environment["SLUICE_OPS__PORT"])
    for name in found["names"]:
        assert environment(ROLES[name])["SLUICE_OPS__HOST"] == "0.0.0.0"  # noqa: S104 - of the container
