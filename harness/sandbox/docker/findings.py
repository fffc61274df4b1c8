"""What a Docker daemon says of itself: the limits it cannot put in force, and its lines of `troop doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.sandbox.base import Finding
from harness.sandbox.client import DISK_UNLIMITED
from harness.sandbox.docker.image import DEFAULT_IMAGE, is_current

_LIMITS = (
    ("MemoryLimit", "memory is not limited: the kernel's memory cgroup is off"),
    ("SwapLimit", "swap is not limited: a sandbox may use more than its memory limit in swap"),
    ("PidsLimit", "the number of processes is not limited: the kernel's pids cgroup is off"),
    ("CpuCfsQuota", "CPU time is not limited: the kernel has no CFS quota"),
)


def missing_limits(info: Mapping[str, Any]) -> tuple[str, ...]:
    """From the daemon's own words; Podman leaves some out, which says nothing."""
    return tuple(sentence for key, sentence in _LIMITS if info.get(key, info.get(key.replace("Cpu", "CPU"))) is False)


def findings(info: Mapping[str, Any], api: str, name: str, image: Any | None) -> list[Finding]:
    storage = str(info.get("Driver"))
    version = (
        f"server {info.get('ServerVersion')}, API {api}, cgroup v{info.get('CgroupVersion', '?')}, storage {storage}"
    )
    missing = missing_limits(info)
    found = [
        Finding("docker", True, version),
        Finding(
            "docker limits",
            not missing,
            "; ".join(missing) or f"memory, swap, CPU and processes are limited; {DISK_UNLIMITED}",
            ""
            if not missing
            else "turn the cgroup controllers on (kernel command line: cgroup_enable=memory swapaccount=1)",
        ),
    ]
    if storage == "vfs":
        slow = "storage driver vfs copies the whole image for every sandbox"
        found.append(Finding("docker storage", False, slow, "use overlay2: put the daemon's data-root on ext4 or xfs"))
    if image is None:
        found.append(Finding("docker image", False, f"{name} is not there", "make image"))
    elif name == DEFAULT_IMAGE and not is_current(image):
        found.append(
            Finding("docker image", False, f"{name} was built from another Dockerfile than today's", "make image")
        )
    else:
        found.append(Finding("docker image", True, name))
    return found
