"""git on the host: one fixed, safe configuration, so that no repository's settings, hooks or filters ever run here.

Two rules keep it so. A git directory that others wrote (the user's repository) is only asked where things are and what
a ref means; content is read through a git directory of ours that borrows its objects. And every call gets the same
environment: no system or user configuration, no transport, no prompt, nothing inherited from a surrounding git.
"""

import base64
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from harness.room import MAKE_ROOM, refused
from tasks.errors import DiskFull, EnvironmentFailed

NO_GIT = "git is not installed here: install it (Debian: apt-get install git)"

# Overrides of whatever a repository's own configuration says; the environment form outranks every file.
_SAFE = {
    **{"core.hooksPath": "/dev/null", "core.pager": "cat", "core.askPass": "", "init.templateDir": ""},
    **{"protocol.ext.allow": "never", "safe.directory": "*", "gc.auto": "0"},
    **dict.fromkeys(("core.fsmonitor", "core.untrackedCache", "credential.interactive", "maintenance.auto"), "false"),
    **dict.fromkeys(("submodule.recurse", "fetch.recurseSubmodules"), "false"),
}

# Highest in git's order of attributes: bytes stay bytes whatever a .gitattributes in the tree asks for. (`-filter` and
# the like would be values; `!` takes the attribute away. `-text` covers eol and crlf as well.)
RAW_ATTRIBUTES = "* -text !eol !crlf -ident !filter !working-tree-encoding !diff !merge !whitespace\n"

IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Troop"), ("EMAIL", "troop@localhost"))
}


# Of a surrounding git's variables: how the user has git talk to servers, and where the user's settings are.
_USERS_OWN = (
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"),
    *("GIT_SSL_", "GIT_SSH", "GIT_PROXY_", "GIT_HTTP_", "GIT_ASKPASS"),
)


class GitFailed(Exception):
    """git ended with an error; `stderr` is what it said, for the caller to turn into a sentence."""

    def __init__(self, arguments: Sequence[str | bytes], stderr: str) -> None:
        command = next((a for a in arguments if isinstance(a, str) and not a.startswith("-")), "")
        super().__init__(f"git {command}: {stderr.strip()}")
        self.stderr = stderr.strip()


def environment() -> dict[str, str]:
    """The variables of a git call: nothing of a surrounding git is inherited, the safe configuration outranks files."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return inherited | {
        **{"LC_ALL": "C", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"},
        **dict.fromkeys(
            ("GIT_CONFIG_NOSYSTEM", "GIT_ATTR_NOSYSTEM", "GIT_NO_REPLACE_OBJECTS", "GIT_NO_LAZY_FETCH"), "1"
        ),
        # A list of no real protocol: every transport is refused, so a partial clone cannot be made to fetch.
        "GIT_ALLOW_PROTOCOL": "none",
        **as_variables(_SAFE),
    }


def users_environment(*more: str) -> dict[str, str]:
    """The surrounding variables without those that send git elsewhere (GIT_DIR, GIT_INDEX_FILE, GIT_CONFIG_PARAMETERS,
    …, as hooks and aliases have them). Proxies, certificates and the like stay, and what begins with one of `more`."""
    kept = (*_USERS_OWN, *more)
    return {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith(kept)}


def as_variables(config: Mapping[str, str]) -> dict[str, str]:
    """Settings as GIT_CONFIG_KEY_n variables: seen by git, absent from process arguments and files."""
    out = {"GIT_CONFIG_COUNT": str(len(config))}
    for n, (key, value) in enumerate(config.items()):
        out |= {f"GIT_CONFIG_KEY_{n}": key, f"GIT_CONFIG_VALUE_{n}": value}
    return out


def network_environment(location: str) -> tuple[str, dict[str, str]]:
    """For clone and fetch: (location without credentials, variables).

    The user's own git configuration stays in force here (proxies, certificates, credential helpers), since git must
    talk to servers as the user does; it is the configuration of repositories that is not trusted. GITHUB_TOKEN, or
    credentials within an http(s) location, travel as a header in the environment, nowhere else."""
    config = _SAFE | {"http.lowSpeedLimit": "1000", "http.lowSpeedTime": "60"}
    clean, credentials = _split_credentials(location)
    parts = urlsplit(clean)
    token = os.environ.get("GITHUB_TOKEN", "").strip()
    served = parts.scheme == "https" or parts.netloc == urlsplit(os.environ.get("GITHUB_API_URL", "")).netloc
    if credentials is None and token and served and parts.hostname in _github_hosts():
        credentials = f"x-access-token:{token}"
    if credentials is not None:
        encoded = base64.b64encode(credentials.encode()).decode("ascii")
        config[f"http.{parts.scheme}://{parts.netloc}/.extraHeader"] = f"Authorization: Basic {encoded}"
    inherited = users_environment()
    variables = inherited | {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        # A program that the user named for it may answer; nobody is asked at the keyboard.
        "GIT_ASKPASS": inherited.get("GIT_ASKPASS", ""),
        "SSH_ASKPASS": "",
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        **as_variables(config),
    }
    if "GIT_SSH_COMMAND" not in variables and "GIT_SSH" not in variables:
        variables["GIT_SSH_COMMAND"] = f"{user_setting('core.sshCommand') or 'ssh'} -oBatchMode=yes"
    return clean, variables


def user_setting(name: str, *kind: str) -> str:
    """A setting of the user's own (global) git configuration, "" if unset. `kind`: such as "--path"."""
    try:
        return os.fsdecode(git("config", "--global", *kind, "--get", name, base=users_environment())).strip()
    except GitFailed:
        return ""


def without_secrets(text: str, location: str) -> str:
    """A message with the location's credentials and GITHUB_TOKEN taken out."""
    clean, credentials = _split_credentials(location)
    text = text.replace(location, clean)
    own = [part for part in (credentials or "").split(":", 1) if len(part) > 3]
    for secret in filter(None, [os.environ.get("GITHUB_TOKEN", "").strip(), *own]):
        text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
    return text


def _split_credentials(location: str) -> tuple[str, str | None]:
    parts = urlsplit(location)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return location, None
    credentials, _, host = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    return parts._replace(netloc=host).geturl(), f"{unquote(user)}:{unquote(password)}"


def _github_hosts() -> set[str | None]:
    named = [os.environ.get(name, "") for name in ("GITHUB_SERVER_URL", "GITHUB_API_URL")]
    hosts = {urlsplit(url).hostname for url in named if url}
    return ({"github.com"} | hosts) - {None, "api.github.com"}


def git(
    *arguments: str | bytes,
    git_dir: Path | None = None,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    base: Mapping[str, str] | None = None,
) -> bytes:
    """Run git on the host and give back its standard output, with `variables` over the safe environment (or over
    `base`). Raises GitFailed, or DiskFull where there is no room for what it writes."""
    env = {**(environment() if base is None else base), **(variables or {})}
    if git_dir:
        env["GIT_DIR"] = str(git_dir)
    try:
        done = subprocess.run(["git", *arguments], input=stdin, capture_output=True, env=env, cwd=cwd, check=False)
    except FileNotFoundError as error:
        raise EnvironmentFailed(NO_GIT) from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace")
        if refused(said):
            raise DiskFull(f"git cannot go on: {said.strip().splitlines()[0]}{MAKE_ROOM}")
        raise GitFailed(arguments, said)
    return done.stdout


def lines(output: bytes) -> list[str]:
    return output.decode("utf-8", "surrogateescape").splitlines()


def plant(place: Path, head: str, *, config: str = "", borrows: Path | None = None) -> None:
    """A minimal bare git directory by hand: no template, no hooks. `head`: the content of HEAD, where a commit tells by
    its length what ids there are; `borrows`: the objects of another one, which it reads as well."""
    for name in ("objects/pack", "objects/info", "refs/heads", "refs/tags", "info"):
        (place / name).mkdir(parents=True, exist_ok=True)
    (place / "HEAD").write_text(head + "\n")
    (place / "config").write_text(bare_config(sha256=len(head) == 64) + config)
    (place / "info/attributes").write_text(RAW_ATTRIBUTES)
    (place / "info/exclude").write_text("")
    if borrows is not None:
        quoted = os.fsencode(borrows.resolve()).replace(b"\\", rb"\\").replace(b'"', rb"\"").replace(b"\n", rb"\n")
        (place / "objects/info/alternates").write_bytes(b'"%b"\n' % quoted)


def bare_config(*, sha256: bool, bare: bool = True) -> str:
    """checkStat and trustctime: a copied tree keeps its times, not its inodes, and shall count as unchanged."""
    core = f"[core]\n\trepositoryformatversion = {int(sha256)}\n\tbare = {str(bare).lower()}\n"
    core += "\tfilemode = true\n\tsymlinks = true\n\tcheckStat = minimal\n\ttrustctime = false\n"
    return core + ("[extensions]\n\tobjectFormat = sha256\n" if sha256 else "")


class Blobs:
    """Blob contents of one git directory, by object id, through one `git cat-file --batch`; a context manager."""

    def __init__(self, git_dir: Path) -> None:
        env = environment() | {"GIT_DIR": str(git_dir)}
        command = ["git", "cat-file", "--batch"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        assert self._child.stdin is not None and self._child.stdout is not None, "both are pipes"
        self._in, self._out = self._child.stdin, self._child.stdout

    def __enter__(self) -> "Blobs":
        return self

    def __exit__(self, *_: object) -> None:
        self._in.close()
        self._out.close()
        self._child.wait()

    def read(self, oids: Iterable[str]) -> Iterator[bytes]:
        """The blobs in the order asked for. Raises GitFailed for one that is not there."""
        for oid in oids:
            # One at a time: answers of any size cannot fill a pipe that nobody reads.
            self._in.write(oid.encode("ascii").replace(b"\n", b"\\n") + b"\n")  # a name with a line end asks once
            self._in.flush()
            header = self._out.readline().split()
            if len(header) != 3:
                raise GitFailed(["cat-file"], f"object {oid} is missing")
            yield self._out.read(int(header[2]) + 1)[:-1]
