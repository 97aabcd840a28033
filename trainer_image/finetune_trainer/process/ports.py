"""TCP ports that are kept for a server of this machine until it listens."""

from __future__ import annotations

import socket


class HeldPort:
    """A free port that the kernel gives to nobody else until it is closed.

    A socket stays bound to it, and never listens. A server that sets SO_REUSEADDR, as those of
    torch, Go and Python's libraries do, can listen on the port all the same.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("", 0))
        self.number = int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Give the port back, which a server that listens on it keeps."""
        self._socket.close()
