"""TLS contexts from settings, for clients that take an `ssl.SSLContext`."""

import ssl
from pathlib import Path

from connectors.settings import TlsSettings


class TlsFileError(Exception):
    """A file that the TLS settings name cannot be used. `.file` says which one."""

    def __init__(self, reason: str, *, file: Path) -> None:
        super().__init__(f"{file}: {reason}")
        self.reason = reason
        self.file = file


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """A client's context: trusts `ca_file` alone, or else the system's authorities. Raises `TlsFileError`."""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except (ssl.SSLError, OSError) as error:
        if tls.ca_file is None:
            raise
        raise TlsFileError("holds no certificates in PEM", file=tls.ca_file) from error
    context.check_hostname = tls.check_hostname
    if tls.certificate_file is not None:
        _load_own_certificate(context, tls, tls.certificate_file)
    return context


def _load_own_certificate(context: ssl.SSLContext, tls: TlsSettings, certificate: Path) -> None:
    password = tls.key_password.get_secret_value() if tls.key_password else ""
    try:
        # A callable, because OpenSSL asks on the terminal for a password that it is not given.
        context.load_cert_chain(certificate, tls.key_file, password=lambda: password)
    except (ssl.SSLError, OSError) as error:
        problem = getattr(error, "reason", None) or str(error)
        reason = f"certificate and key (PEM) cannot be used together: {problem}; is key_password right?"
        raise TlsFileError(reason, file=certificate) from error
