"""Where a model is served: `--server HOST:PORT[/NAME[/versions/N]]`, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import re

from histospace_tf.vocabulary import InputError

# HOST may be [an IPv6 address]; what follows the port is written as in TF Serving's REST paths.
_FORM = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^/\s:\[\]]+):(?P<port>\d{1,5})"
    r"(?:/(?P<model>[^/\s]+)(?:/versions/(?P<version>\d{1,18}))?)?"
)


@dataclasses.dataclass(frozen=True)
class ServerAddress:
    """host_port: of gRPC. model: its name there, None for the exports' own. version: None for the
    server's choice, its newest."""

    host_port: str
    model: str | None
    version: int | None


def read(text: str) -> ServerAddress:
    """The address that `--server` gives.

    Raises:
        InputError: it has another form, or a port that is none.
    """
    address = _FORM.fullmatch(text)
    if address is None or not 0 < int(address["port"]) < 65536:
        raise InputError(
            f"--server {text!r}: HOST:PORT, HOST:PORT/NAME or HOST:PORT/NAME/versions/N works, "
            "such as localhost:8500"
        )
    version = address["version"]
    return ServerAddress(
        f"{address['host']}:{address['port']}",
        address["model"],
        int(version) if version else None,
    )
