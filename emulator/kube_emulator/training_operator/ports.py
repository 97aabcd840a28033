"""Rendezvous ports: kept from all others until a job's pods listen on them."""

import random
import socket

PORTS = range(20000, 30000)  # below those that outgoing connections get


def held_port(among: range = PORTS) -> socket.socket:
    """A socket on a free port. While it is open nobody may bind to the port, but a server that
    sets SO_REUSEADDR, as torch's and Go's do, can listen on it."""
    for port in random.sample(among, len(among)):
        holder = socket.socket()
        try:
            holder.bind(("", port))
        except OSError:
            holder.close()
            continue
        # only now, or another's holder would be no hindrance
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return holder
    raise RuntimeError(f"no free port in {among}")


def number_of(holder: socket.socket) -> int:
    return int(holder.getsockname()[1])
