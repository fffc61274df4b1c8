"""Asks the pytest that waits (warm.py) for one run, lends it the own standard streams, and ends as the run ended.

    python -I -S warm_ask.py SOCKET PLACE SECONDS < request

Started anew for every run, so it is short and loads next to nothing. PLACE and request: see warm.py.
"""

# pathlib would take longer to load than all that is done here.
# ruff: noqa: PTH118, PTH123

import _socket
import os
import sys
import time

DESCRIPTOR_BYTES = 4
REFUSED = 125


def ask(socket_path: str, place: str, patience: float) -> int:
    """Hand the run over, wait for its end; its exit code, or REFUSED. `patience`: seconds for the socket to appear."""
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    until = time.time() + patience
    while True:
        try:
            server.connect(socket_path)
            break
        except OSError:
            if time.time() > until:
                return REFUSED
            time.sleep(0.002)
    streams = b"".join(number.to_bytes(DESCRIPTOR_BYTES, sys.byteorder) for number in (0, 1, 2))
    try:
        server.sendmsg([os.fsencode(place)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
        answer = server.recv(16)
    except OSError:
        answer = b""
    if answer:
        return int(answer)
    kill(place)
    return REFUSED


def kill(place: str) -> None:
    """End a run whose waiting process is gone."""
    import json
    import signal

    try:
        with open(os.path.join(place, "report"), "rb") as report:
            pid = json.loads(report.readline().decode("ascii"))["warm"]
        if os.getsid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
    except (OSError, ValueError, KeyError):
        return


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2], float(sys.argv[3])))
