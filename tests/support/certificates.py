"""Throw-away certificates in PEM, made with the openssl command line."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

KEY_PASSWORD = "key-secret"  # noqa: S105 - of a key that lives as long as a test


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Files of an authority, of a server on 127.0.0.1 and of a client; and an authority that neither knows."""

    ca: Path
    server: Path
    client: Path
    client_key: Path
    client_key_encrypted: Path
    foreign_ca: Path
    foreign_client: Path
    foreign_client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """The server's file holds key and certificate together, as Kafka reads a PEM keystore."""
    ca, ca_key = _authority(folder, "ca")
    foreign_ca, foreign_ca_key = _authority(folder, "foreign-ca")
    server, server_key = _signed(folder, "server", ca, ca_key, "subjectAltName=IP:127.0.0.1")
    client, client_key = _signed(folder, "client", ca, ca_key, "extendedKeyUsage=clientAuth")
    foreign, foreign_key = _signed(folder, "foreign", foreign_ca, foreign_ca_key, "extendedKeyUsage=clientAuth")
    together = folder / "server-with-key.pem"
    together.write_text(server_key.read_text() + server.read_text())
    encrypted = folder / "client-encrypted.key"
    _openssl("pkey", "-in", client_key, "-aes256", "-passout", f"pass:{KEY_PASSWORD}", "-out", encrypted)
    return Certificates(
        ca=ca,
        server=together,
        client=client,
        client_key=client_key,
        client_key_encrypted=encrypted,
        foreign_ca=foreign_ca,
        foreign_client=foreign,
        foreign_client_key=foreign_key,
    )


def _authority(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    _openssl(
        *("req", "-x509", *_NEW_KEY, "-keyout", key, "-out", certificate, "-days", "2", "-subj", f"/CN={name}"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),  # Python 3.13 insists on it
    )
    return certificate, key


def _signed(folder: Path, name: str, ca: Path, ca_key: Path, extension: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    _openssl(
        *("req", "-x509", *_NEW_KEY, "-keyout", key, "-out", certificate, "-days", "2", "-subj", f"/CN={name}"),
        *("-CA", ca, "-CAkey", ca_key, "-addext", extension, "-addext", "basicConstraints=critical,CA:FALSE"),
    )
    return certificate, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
