"""On PYTHONPATH of a child process: any connection that leaves this machine is refused and noted in NO_NETWORK_LOG."""

import os
import pathlib
import socket

_connect = socket.socket.connect
_getaddrinfo = socket.getaddrinfo
_OWN = ("127.", "::1", "localhost")


def _refuse(host: object) -> None:
    with pathlib.Path(os.environ["NO_NETWORK_LOG"]).open("a") as log:
        log.write(f"{host}\n")
    raise OSError(f"no network in tests: {host}")


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(_OWN):
        _refuse(address[0])
    return _connect(self, address)


def getaddrinfo(host, *args, **kwargs):
    if host and not str(host).startswith(_OWN) and host not in ("0.0.0.0", "::", socket.gethostname()):
        _refuse(host)
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect = connect
socket.getaddrinfo = getaddrinfo
