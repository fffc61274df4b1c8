"""A real Ray cluster on this machine: a head without places, and nodes that have a cache each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Machines:
    """The cluster's nodes by name; the cache of each lies in `root`."""

    cluster: Any
    root: Path
    nodes: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, name: str, places: int = 2, **variables: str) -> None:
        """Start a node with so many places."""
        given = {"TROOP_CACHE": str(self.root / name), "TROOP_DOCKER_ENVIRONMENTS": f"troop-test-{name}", **variables}
        wanted = {"num_cpus": 2, "resources": {"sandbox": places}, "env_vars": given}
        self.nodes[name] = patiently(lambda: self.cluster.add_node(**wanted))

    def kill(self, name: str) -> None:
        """End a node as a lost machine does: its raylet and every worker, without a goodbye."""
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)


def patiently(start: Callable[[], Any]) -> Any:
    """Ray gives a raylet 30 seconds to start, whatever else the machine does; here it has a few tries."""
    for _ in range(4):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return start()


@contextlib.contextmanager
def machines(root: Path) -> Iterator[Machines]:
    """A cluster that this process, too, is connected to."""
    import ray
    from ray.cluster_utils import Cluster

    given = {"num_cpus": 0, "include_dashboard": False}
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=given))
    try:
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        yield Machines(cluster, root)
    finally:
        ray.shutdown()
        cluster.shutdown()


def workers_of(machines: Machines, name: str) -> list[int]:
    """The process ids of the workers on a node."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mine = f"TROOP_CACHE={machines.root / name}\0".encode() in (place / "environ").read_bytes()
            if mine and (place / "cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(int(place.name))
    return found
