"""TLS of the bridge's own port."""

import ssl

from connectors.settings import BridgeTlsSettings
from connectors.tls import TlsFileError


def server_context(tls: BridgeTlsSettings) -> ssl.SSLContext | None:
    """None where plain HTTP is served. Raises `connectors.tls.TlsFileError`."""
    if tls.certificate_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    password = tls.key_password.get_secret_value() if tls.key_password else ""
    try:
        # A callable, because OpenSSL asks on the terminal for a password that it is not given.
        context.load_cert_chain(tls.certificate_file, tls.key_file, password=lambda: password)
    except (ssl.SSLError, OSError) as error:
        problem = getattr(error, "reason", None) or str(error)
        reason = f"certificate and key (PEM) cannot be used together: {problem}; is key_password right?"
        raise TlsFileError(reason, file=tls.certificate_file) from error
    if tls.ca_file is not None:
        try:
            context.load_verify_locations(tls.ca_file)
        except (ssl.SSLError, OSError) as error:
            raise TlsFileError("holds no certificates in PEM", file=tls.ca_file) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
