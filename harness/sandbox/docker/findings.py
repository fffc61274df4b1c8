"""What a Docker daemon says of itself: the limits it cannot put in force, and its lines of `troop doctor`."""

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
    storage, cgroup = info.get("Driver"), info.get("CgroupVersion", "?")
    version = f"server {info.get('ServerVersion')}, API {api}, cgroup v{cgroup}, storage {storage}"
    missing = "; ".join(missing_limits(info))
    fix = "turn the cgroup controllers on (kernel command line: cgroup_enable=memory swapaccount=1)"
    limited = f"memory, swap, CPU and processes are limited; {DISK_UNLIMITED}"
    limits = Finding("docker limits", False, missing, fix) if missing else Finding("docker limits", True, limited)
    found = [Finding("docker", True, version), limits]
    if storage == "vfs":
        slow = "storage driver vfs copies the whole image for every sandbox"
        found.append(Finding("docker storage", False, slow, "use overlay2: put the daemon's data-root on ext4 or xfs"))
    wrong = f"{name} is not there" if image is None else ""
    if name == DEFAULT_IMAGE and image is not None and not is_current(image):
        wrong = f"{name} was built from another Dockerfile than today's"
    found.append(Finding("docker image", not wrong, wrong or name, "make image" if wrong else ""))
    return found
