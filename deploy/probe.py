"""Asks the role in this container how it is: `python probe.py /readyz`. Exit code 0: well; 1: not, or no answer.

Stands alone, on the standard library: a check every few seconds must not import all of Sluice.
"""

import http.client
import os
import sys

TIMEOUT_SECONDS = 4


def main(path: str) -> int:
    """The check. What it prints is shown by `docker inspect`."""
    port = int(os.environ["SLUICE_OPS__PORT"])
    # Not urllib: with HTTP_PROXY in the environment it would ask the proxy.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"no answer on port {port}: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.write(f"{response.status} {body}\n")
    return 0 if response.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
