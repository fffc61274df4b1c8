"""What a daemon says of its disk, also one that adds up sizes for somebody else just now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest

from harness.swebench import store
from harness.swebench.store import bytes_used, kept_images
from tasks.errors import SandboxFailed

BUSY = "a disk usage operation is already running"


class Daemon:
    """Refuses so many times."""

    def __init__(self, refusals: int, why: str = BUSY) -> None:
        self.left, self.why = refusals, why
        self.api = SimpleNamespace(images=lambda all: [])

    def df(self) -> dict[str, Any]:
        self.left -= 1
        if self.left >= 0:
            response: Any = SimpleNamespace(status_code=500, reason="Internal Server Error", url="")
            raise docker.errors.APIError("500 Server Error", response, self.why)
        image = {"Id": "sha256:1", "Size": 7, "RepoTags": ["own/place:latest"], "Created": 1}
        return {"LayersSize": 42, "Images": [image]}


def test_a_daemon_that_adds_up_for_another_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.swebench.store.time.sleep", lambda seconds: None)
    assert bytes_used(Daemon(3)) == 42
    (kept,) = kept_images(Daemon(2), {"own/place:latest": "a__b-1"})
    assert (kept.kind, kept.instance, kept.size) == ("published", "a__b-1", 7)
    assert kept_images(Daemon(0)) == [], "an image that no row names is nobody's"


def test_another_refusal_and_one_that_does_not_end_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxFailed, match="docker cannot tell what its images take: out of order"):
        bytes_used(Daemon(1, "out of order"))
    monkeypatch.setattr(store, "BUSY_SECONDS", -1.0)
    with pytest.raises(SandboxFailed, match=BUSY):
        bytes_used(Daemon(9))
