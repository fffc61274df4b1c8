"""Docker containers as whoever makes them needs to know them: labels that say whose they are, names, removal, and why
one ended. All calls here block."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from harness.records import Json
from harness.room import sandbox_failure
from tasks.errors import SandboxFailed

RUN_LABEL, NAME_LABEL, OWNER_LABEL = "troop.run", "troop.name", "troop.owner"
ENVIRONMENT_LABEL = "troop.environment"

_MAKING_SECONDS = 600.0

T = TypeVar("T")


def explained(what: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """A call to the daemon. Raises SandboxFailed for whatever the daemon or the way to it refuses, DiskFull where it
    has no room."""
    import docker.errors
    import requests.exceptions

    try:
        return function(*args, **kwargs)
    except docker.errors.APIError as error:
        raise sandbox_failure(f"docker cannot {what}: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise SandboxFailed(f"docker cannot {what}: the daemon does not answer ({error})") from error


def make_container(client: Any, image: str, label: str, run: str, name: str, host: Json, **settings: Any) -> str:
    """A container called `label` that is ready to be started, speaks by its attached streams alone, and is gone when it
    ends; its id. `host`: further settings of the daemon's host configuration."""
    made = client.api.create_container(
        image,
        name=label,
        user="0:0",
        stdin_open=True,
        # The user's docker configuration may name a proxy with a password in it.
        use_config_proxy=False,
        labels={RUN_LABEL: run, NAME_LABEL: name, OWNER_LABEL: owner_mark()},
        healthcheck={"test": ["NONE"]},
        # A log driver would write all that goes over the streams to the disk.
        host_config=client.api.create_host_config(log_config={"Type": "none", "Config": {}}, auto_remove=True, **host),
        **settings,
    )
    return str(made["Id"])


def remove_container(client: Any, container: str) -> None:
    """Kill and remove, without a grace period; fine if it is gone. Returns when it is."""
    import docker.errors

    until = time.monotonic() + 30
    while True:
        try:
            client.api.remove_container(container, force=True, v=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            # 409: the daemon is removing it already, as it does when the first process ends.
            if error.status_code != 409 or time.monotonic() > until:
                raise
            time.sleep(0.02)


def remove_image(client: Any, name: str) -> None:
    """Remove an image, fine if it is gone."""
    import docker.errors

    with contextlib.suppress(docker.errors.ImageNotFound):
        client.api.remove_image(name, force=True)


def obituary(client: Any, container: str, since: float) -> str:
    """Why a container ended, from the daemon's memory of events (the container itself may be gone already)."""
    time.sleep(0.1)  # the stream ends a moment before the event is written
    wanted = {"container": [container], "event": ["oom", "die"]}
    events = client.api.events(since=int(since), until=f"{time.time():.6f}", filters=wanted, decode=True)
    seen = {str(event.get("Action") or event.get("status")): event for event in events}
    if "oom" in seen:
        return "it used more memory than its limit"
    if "die" in seen:
        attributes = (seen["die"].get("Actor") or {}).get("Attributes") or {}
        return f"its container ended with exit code {attributes.get('exitCode', 'unknown')}"
    return "its connection to the docker daemon ended"


def seems_used(row: Mapping[str, Any], now: float) -> bool:
    """Whether a container of unknown ownership looks alive: also one that somebody is just making."""
    state = row.get("State")
    return state == "running" or (state == "created" and now - float(row.get("Created", now)) < _MAKING_SECONDS)


def sweep(client: Any, run: str | None) -> list[str]:
    """Remove containers (of one run, or all) that dead processes left, with all also unfinished images; names them."""
    removed = []
    label = OWNER_LABEL if run is None else f"{RUN_LABEL}={run}"
    for row in client.api.containers(all=True, filters={"label": [label, OWNER_LABEL]}):
        mark = row["Labels"][OWNER_LABEL]
        if not mark or owner_lives(mark, running=seems_used(row, time.time())):
            continue
        remove_container(client, row["Id"])
        removed.append(f"container {row['Names'][0].lstrip('/')}")
    if run is None:
        for row in client.api.images(filters={"dangling": True, "label": [ENVIRONMENT_LABEL]}):
            remove_image(client, row["Id"])
            removed.append(f"unfinished environment image {row['Id'][7:19]}")
    return removed


# ---- whose a container is: the mark of a harness process, which tells later whether that process still lives


def owner_mark() -> str:
    """The mark of this process: its id, which alone comes back, with its start time, the boot and the pid namespace."""
    pid = os.getpid()
    return f"{_here()}/{pid}/{_started(pid)}"


def owner_lives(mark: str, *, running: bool = True) -> bool:
    """Whether the process of that mark lives. Of a process on another machine (a shared daemon), in another container
    or before a reboot nothing is known: then what the sandbox itself does (`running`) is taken for its life."""
    whose, _, started = mark.rpartition("/")
    here, _, pid = whose.rpartition("/")
    return _started(int(pid)) == started if here == _here() and pid.isdigit() else running


@cache
def _here() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """Start time in clock ticks since the boot; empty for a process that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")
