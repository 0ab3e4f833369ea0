"""A throw-away Kafka with listeners that ask for passwords, certificates and tokens."""

import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sluice.stack import kafka_jars, ports
from sluice.stack.kafka_settings import broker_settings
from sluice.stack.locations import cache_dir
from tests.support.certificates import Certificates

PLAIN_USER, PLAIN_PASSWORD = "alice", "alice-secret"
SCRAM_USER, SCRAM_PASSWORD = "bob", "bob-secret"

_READY_TIMEOUT_SECONDS = 60
_JAVA_FLAGS = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true")
_SECURITY = "org.apache.kafka.common.security"


@dataclass(frozen=True, kw_only=True)
class SecureKafka:
    """Addresses of its listeners, by what they ask for."""

    sasl_ssl: str
    mutual_tls: str
    oauth: str


def missing_programs() -> list[str]:
    """What this machine lacks for it."""
    return [program for program in ("java", "mvn", "openssl") if shutil.which(program) is None]


@contextmanager
def secure_kafka(folder: Path, certificates: Certificates) -> Iterator[SecureKafka]:
    """Runs until the block ends. Its log is `kafka.log` in `folder`."""
    log_path = folder / "kafka.log"
    jars = kafka_jars.jars_dir(cache_dir())
    if not kafka_jars.are_there(cache_dir()):
        maven = Path(shutil.which("mvn") or "mvn")
        kafka_jars.fetch(cache_dir(), maven=maven, log_path=log_path, cancelled=threading.Event())
    internal, controller, sasl, mutual, oauth = ports.choose(5)
    settings = broker_settings(
        listen_on=ports.LOOPBACK,
        client_port=internal,
        controller_port=controller,
        data_dir=str(folder / "data"),
    ) | _listeners(internal=internal, controller=controller, sasl=sasl, mutual=mutual, oauth=oauth)
    properties = folder / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in (settings | _secrets(certificates)).items()))
    java = ["java", *_JAVA_FLAGS, "-cp", f"{jars}/*"]
    _format(java, properties)
    with log_path.open("ab") as log:
        broker = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_it_answers(broker, (sasl, mutual, oauth), log_path)
        yield SecureKafka(
            sasl_ssl=f"{ports.LOOPBACK}:{sasl}",
            mutual_tls=f"{ports.LOOPBACK}:{mutual}",
            oauth=f"{ports.LOOPBACK}:{oauth}",
        )
    finally:
        # Its data is thrown away, so it need not close its logs.
        broker.kill()
        broker.wait(timeout=10)


def _listeners(**port: int) -> dict[str, str]:
    names = {"PLAINTEXT": "internal", "SASL": "sasl", "MUTUAL": "mutual", "OAUTH": "oauth"}
    open_to_clients = [f"{name}://{ports.LOOPBACK}:{port[which]}" for name, which in names.items()]
    return {
        "listeners": ",".join([*open_to_clients, f"CONTROLLER://{ports.LOOPBACK}:{port['controller']}"]),
        "advertised.listeners": ",".join(open_to_clients),
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MUTUAL:SSL,OAUTH:SASL_PLAINTEXT"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
    }


def _secrets(certificates: Certificates) -> dict[str, str]:
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.server),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.ca),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.sasl.plain.sasl.jaas.config": (
            f'{_SECURITY}.plain.PlainLoginModule required user_{PLAIN_USER}="{PLAIN_PASSWORD}";'
        ),
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": f"{_SECURITY}.scram.ScramLoginModule required;",
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        # Without a validator of its own Kafka takes unsecured JSON Web Signatures, which a test can write.
        "listener.name.oauth.oauthbearer.sasl.jaas.config": (
            f'{_SECURITY}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        ),
    }


def _format(java: list[str], properties: Path) -> None:
    subprocess.run(
        [
            *java,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={uuid.uuid4().hex[:22]}",
            f"--config={properties}",
            "--add-scram",
            f"SCRAM-SHA-512=[name={SCRAM_USER},password={SCRAM_PASSWORD}]",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )


def _wait_until_it_answers(broker: subprocess.Popen[bytes], listeners: tuple[int, ...], log_path: Path) -> None:
    give_up_at = time.monotonic() + _READY_TIMEOUT_SECONDS
    while not all(ports.answers(port) for port in listeners):
        if broker.poll() is not None or time.monotonic() > give_up_at:
            raise RuntimeError(f"Kafka did not start:\n{log_path.read_text()[-3000:]}")
        time.sleep(0.1)
