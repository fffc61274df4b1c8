"""What every sandbox backend promises, tried on each of them for real."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.records import FileState
from harness.sandbox.base import ENVDIR, TROOPDIR, WORKDIR, Limits, Provider, Sandbox, SandboxSpec
from harness.sandbox.client import SNAPSHOT_ENTRIES
from tasks.errors import InputError, SandboxFailed

SMALL = Limits(memory_mb=300, cpus=1.0, processes=60, output_bytes=10_000)


@asynccontextmanager
async def sandbox_of(
    provider: Provider, environment: str | None = None, limits: Limits = SMALL
) -> AsyncIterator[Sandbox]:
    sandbox = await provider.create(SandboxSpec("conformance", "box", environment=environment, limits=limits))
    try:
        yield sandbox
    finally:
        await sandbox.close()


def inside(provider: Provider, scenario: Callable[[Sandbox], Awaitable[None]], limits: Limits = SMALL) -> None:
    """Play a scenario in a fresh, bare sandbox."""

    async def play() -> None:
        async with sandbox_of(provider, limits=limits) as sandbox:
            await scenario(sandbox)

    asyncio.run(play())


def archive(files: dict[str, bytes], *, mode: int = 0o644, links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid, member.gid = len(content), mode, 4711, 4711
            tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return out.getvalue()


async def alive(sandbox: Sandbox, pattern: str) -> list[str]:
    """Command lines inside that contain the pattern (and are not this look at them)."""
    script = 'for p in /proc/[0-9]*; do tr "\\0" " " < $p/cmdline 2>/dev/null; echo; done'
    found = (await sandbox.exec(script)).output.splitlines()
    return [line for line in found if pattern in line and "/proc/" not in line]


# ---- commands


def test_a_command_gives_its_exit_code_and_both_streams_apart(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        done = await sandbox.exec("echo out; echo err >&2; exit 7")
        assert (done.stdout, done.stderr, done.exit_code) == (b"out\n", b"err\n", 7)
        assert not done.timed_out and not done.truncated and 0 < done.seconds < 5
        assert (await sandbox.exec("kill -TERM $$")).exit_code == 128 + 15
        merged = await sandbox.exec("echo 1; echo 2 >&2; echo 3", merge=True)
        assert (merged.stdout, merged.stderr) == (b"1\n2\n3\n", b"")

    inside(provider, scenario)


def test_a_command_takes_its_directory_environment_arguments_and_input(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert (await sandbox.exec("pwd")).stdout == WORKDIR.encode() + b"\n"
        assert (await sandbox.exec("pwd", cwd="/usr/bin")).stdout == b"/usr/bin\n"
        assert (await sandbox.exec('echo "$GIVEN"', env={"GIVEN": "a b'c"})).stdout == b"a b'c\n"
        assert (await sandbox.exec(["printf", "%s|", "a b", "$HOME", ""])).stdout == b"a b|$HOME||"
        assert (await sandbox.exec("cat", stdin=b"")).stdout == b""
        content = os.urandom(3_000_000)
        checked = await sandbox.exec(["sha1sum"], stdin=content)
        import hashlib

        assert checked.stdout.split()[0].decode() == hashlib.sha1(content).hexdigest()

    inside(provider, scenario)


def test_input_that_a_command_does_not_read_hurts_nobody(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert (await sandbox.exec("exec 0<&-; echo done", stdin=b"x" * 2_000_000)).stdout == b"done\n"
        assert (await sandbox.exec("echo still here")).exit_code == 0

    inside(provider, scenario)


def test_a_command_that_cannot_be_started_says_why(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        missing = await sandbox.exec(["no-such-program"])
        assert missing.exit_code == 127 and b"no-such-program: No such file or directory" in missing.stderr
        nowhere = await sandbox.exec("pwd", cwd="/no/such/place")
        assert nowhere.exit_code in (126, 127) and b"/no/such/place" in nowhere.stderr

    inside(provider, scenario)


def test_a_long_output_is_cut_in_the_middle_and_says_how_much_is_gone(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        script = "echo first; head -c 10000000 /dev/zero | tr '\\0' x; echo; echo last"
        done = await sandbox.exec(script)
        total = 6 + 10_000_000 + 1 + 5
        assert done.truncated and done.exit_code == 0
        assert done.stdout.startswith(b"first\nxxx") and done.stdout.endswith(b"x\nlast\n")
        assert b"\n[... %d bytes cut ...]\n" % (total - SMALL.output_bytes) in done.stdout
        assert len(done.stdout) < SMALL.output_bytes + 100
        whole = await sandbox.exec("head -c 5000 /dev/zero", output_bytes=5000)
        assert whole.stdout == bytes(5000) and not whole.truncated

    inside(provider, scenario)


def test_commands_run_at_the_same_time(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        began = time.monotonic()
        done = await asyncio.gather(*(sandbox.exec(f"sleep 1; echo {n}; exit {n}") for n in range(8)))
        assert [(d.stdout, d.exit_code) for d in done] == [(b"%d\n" % n, n) for n in range(8)]
        assert time.monotonic() - began < 5

    inside(provider, scenario)


def test_a_timeout_longer_than_any_wait_is_none(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert (await sandbox.exec("sleep 0.2; echo done", timeout=100 * 86400.0)).stdout == b"done\n"

    inside(provider, scenario)


def test_no_file_grows_without_limit(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        done = await sandbox.exec("truncate -s 1G small && echo fits; truncate -s 3G large; ls")
        assert done.stdout == b"fits\nlarge\nsmall\n" and "large" in done.stderr.decode()
        assert any("disk space" in sentence for sentence in sandbox.missing_limits)

    inside(provider, scenario)


def test_a_command_ends_with_its_main_process_though_others_hold_its_output(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        done = await sandbox.exec("(sleep 2; echo late; sleep 300) & echo started")
        assert done.stdout == b"started\n" and done.seconds < 2
        await asyncio.sleep(2.3)
        assert await alive(sandbox, "sleep 300"), "a server left in the background must not die of its own output"

    inside(provider, scenario)


# ---- ends

ESCAPES = {
    "child": "sleep 301 & sleep 302",
    "setsid": "setsid sleep 303 & sleep 304",
    "daemon": "(setsid sh -c 'sleep 305 & sleep 306 & wait' &) ; (nohup sleep 307 >/dev/null 2>&1 &) ; sleep 308",
    "deaf": "trap '' TERM HUP INT; sh -c \"trap '' TERM; while :; do sleep 309; done\" & while :; do sleep 310; done",
    "without guardian": "kill -9 $PPID; setsid sleep 311 & sleep 312",
    "stopped": "sleep 313 & kill -STOP $!; kill -STOP $PPID; sleep 314",
}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES.keys())
def test_a_timeout_kills_all_that_the_command_started(provider: Provider, escape: str) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.exec("sleep 400 &")
        began = time.monotonic()
        done = await sandbox.exec("echo before; " + escape, timeout=0.7)
        assert done.timed_out and done.exit_code == 124 and done.stdout == b"before\n"
        assert time.monotonic() - began < 5
        assert not await alive(sandbox, "sleep 3")
        if "PPID; setsid" not in escape:
            assert await alive(sandbox, "sleep 400"), "what an earlier command left running is not the timed-out one's"

    inside(provider, scenario)


def test_a_cancelled_exec_kills_what_it_started(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        running = asyncio.ensure_future(sandbox.exec("setsid sleep 320 & sleep 321"))
        started = 'until grep -qs "sleep 321" /proc/[0-9]*/cmdline; do sleep 0.02; done'
        await sandbox.exec(started.replace("sleep 321", "sleep.321"))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not await alive(sandbox, "sleep 32")

    inside(provider, scenario)


def test_a_fork_bomb_is_stopped_and_the_sandbox_goes_on(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert not any("processes" in sentence for sentence in sandbox.missing_limits)
        done = await sandbox.exec("bomb() { bomb | bomb & }; bomb; sleep 60", timeout=2)
        assert done.timed_out or done.exit_code != 0
        after = await sandbox.exec("echo alive")
        assert after.stdout == b"alive\n"

    inside(provider, scenario)


def test_with_the_processes_used_up_an_exec_fails_in_words(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        holding = asyncio.ensure_future(sandbox.exec("while sleep 100 & do :; done; sleep 100", timeout=3))
        await asyncio.sleep(1.5)
        refused = await sandbox.exec("echo no", timeout=1)
        assert refused.exit_code != 0 and b"cannot start a process" in refused.stderr
        await holding
        assert (await sandbox.exec("echo again")).stdout == b"again\n"

    inside(provider, scenario)


def test_quiet_ends_whatever_commands_left_running(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        waiting = asyncio.ensure_future(sandbox.exec("sleep 100"))
        await sandbox.exec("bomb() { bomb | bomb & }; bomb; for n in 1 2 3; do setsid sleep 100 & done; sleep 1")
        await sandbox.quiet()
        assert (await waiting).exit_code == 137
        told = await sandbox.exec("echo /proc/[0-9]*")
        assert len(told.stdout.split()) <= 4, "the first process, a guardian, a shell"
        await sandbox.quiet()

    inside(provider, scenario)


def test_what_a_command_closed_is_in_the_snapshot_all_the_same(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.exec("mkdir -p a/b; echo 1 > a/b/f; echo 1 > g")
        assert len((await sandbox.snapshot()).files) == 2
        await sandbox.exec("echo 2 > a/b/f; echo 2 > g; chmod 000 a/b/f g a/b a .")
        changed = await sandbox.snapshot()
        assert {(f.path, f.data) for f in changed.files} == {("a/b/f", b"2\n"), ("g", b"2\n")}
        assert not changed.left_out

    inside(provider, scenario)


def test_a_memory_hog_is_killed_and_the_sandbox_goes_on(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert not any("memory" in sentence for sentence in sandbox.missing_limits)
        hog = "python3 -c 'x = [bytes([1]) * 10_000_000 for _ in range(100)]; print(len(x))'"
        done = await sandbox.exec(hog, timeout=60)
        assert done.exit_code in (137, 1) and b"100" not in done.stdout
        together = await asyncio.gather(*(sandbox.exec(hog.replace("100)", "20)"), timeout=60) for _ in range(3)))
        assert any(d.exit_code != 0 for d in together), "the limit is the sandbox's, not each process's"
        assert (await sandbox.exec("echo alive")).stdout == b"alive\n"

    inside(provider, scenario)


# ---- what cannot be forged

FORGERIES = {
    "writes to the first process's descriptors": "for f in /proc/1/fd/*; do echo forged > $f; cat < $f; done",
    "writes to the guardian's descriptors": "for f in /proc/$PPID/fd/*; do echo 'ended 0' > $f; done",
    "writes to every descriptor it has": "for n in $(seq 3 200); do echo 'ended 0' >&$n; done",
    "reads the first process's memory": "head -c 1 /proc/1/mem; cat /proc/1/maps /proc/1/environ; ls /proc/1/root/",
    "asks the first process to end": "kill -TERM 1; kill -INT 1; kill -HUP 1; kill -USR1 1; kill -QUIT 1; kill -STOP 1",
    "kills the first process": "kill -9 1",
    "kills its guardian": "kill -9 $PPID",
    "kills everybody": "kill -9 -1",
    "stops its guardian and lets it go": "kill -STOP $PPID; sleep 0.1; kill -CONT $PPID",
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES.keys())
def test_no_command_can_forge_its_exit_status_or_end_its_sandbox(provider: Provider, forgery: str) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        done = await sandbox.exec(f"{forgery}; echo here; exit 41", timeout=20)
        assert done.exit_code == 41 and not done.timed_out
        assert done.stdout.endswith(b"here\n") and b"forged" not in done.stdout
        assert (await sandbox.exec("echo alive")).stdout == b"alive\n"

    inside(provider, scenario)


PTRACE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for pid in (1, os.getppid()):
    for request in (16, 0x4206):  # ATTACH, SEIZE
        if libc.ptrace(request, pid, 0, 0) == 0:
            print("traced", pid)
    if hasattr(os, "pidfd_open"):
        fd = os.pidfd_open(pid)
        for number in range(20):
            if libc.syscall(438, fd, number, 0) >= 0:
                print("took descriptor", number, "of", pid)
sys.exit(41)
"""


def test_no_command_can_trace_the_processes_that_watch_it(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        done = await sandbox.exec(["python3", "-c", PTRACE])
        assert (done.exit_code, done.stdout) == (41, b""), done.output

    inside(provider, scenario)


SIGNALS = """
import ctypes, fcntl, os, signal, struct
libc = ctypes.CDLL(None, use_errno=True)
QUEUEINFO = {"x86_64": 129, "aarch64": 138}[os.uname().machine]
for code in (-1, -2, -3, -6, 0):
    # signo, errno, code, padding, pid 0, uid 0: as if somebody outside had sent it
    info = ctypes.create_string_buffer(struct.pack("iiiiii", signal.SIGTERM, 0, code, 0, 0, 0), 128)
    libc.syscall(QUEUEINFO, 1, int(signal.SIGTERM), info)
F_SETSIG = 10
for number in (signal.SIGTERM, signal.SIGIO, signal.SIGKILL):
    r, w = os.pipe()
    try:
        fcntl.fcntl(r, fcntl.F_SETOWN, 1)
        fcntl.fcntl(r, F_SETSIG, int(number))
        fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(w, b"x")
    except OSError as error:
        print(error)
"""


def test_no_command_can_make_up_a_signal_that_ends_its_sandbox(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        done = await sandbox.exec(["python3", "-c", SIGNALS])
        assert done.exit_code == 0, done.output
        await asyncio.sleep(0.2)
        assert (await sandbox.exec("echo alive")).stdout == b"alive\n"

    inside(provider, scenario)


def test_one_command_killing_everybody_is_no_success_of_another(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        victim = asyncio.ensure_future(sandbox.exec("sleep 30; exit 0"))
        killer = await sandbox.exec("sleep 0.5; kill -9 -1; exit 9")
        assert (await victim).exit_code == 137
        assert killer.exit_code == 9

    inside(provider, scenario)


# ---- walls


def test_there_is_no_network(provider: Provider) -> None:
    """Neither the host's loopback, nor its abstract sockets, nor a way out."""
    tcp = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    name = f"troop-conformance-{os.getpid()}"
    abstract.bind(b"\0" + name.encode())
    abstract.listen()
    script = f"""
import socket
def reach(family, address):
    s = socket.socket(family); s.settimeout(2)
    try:
        s.connect(address); print("reached", address)
    except OSError as error:
        print("no")
reach(socket.AF_INET, ("127.0.0.1", {tcp.getsockname()[1]}))
reach(socket.AF_UNIX, chr(0) + {name!r})
reach(socket.AF_INET, ("192.0.2.1", 80))
reach(socket.AF_UNIX, "/var/run/docker.sock")
print(sorted(name for _, name in socket.if_nameindex() if name == "eth0"))
s = socket.create_server(("127.0.0.1", 0)); socket.create_connection(s.getsockname(), 2); print("own loopback")
"""

    async def scenario(sandbox: Sandbox) -> None:
        done = await sandbox.exec(["python3", "-c", script])
        assert done.stdout.decode().split("\n") == ["no"] * 4 + ["[]", "own loopback", ""], done.output

    with tcp, abstract:
        inside(provider, scenario)


def test_nothing_of_the_host_is_seen(provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not its environment, homes, temporary files, processes, sockets or accounts' secrets."""
    secret = f"secret-{os.urandom(8).hex()}"
    monkeypatch.setenv("TROOP_TEST_API_KEY", secret)
    (tmp_path / "key").write_text(secret)
    places = [str(tmp_path), str(Path.home() / ".ssh"), str(Path.home() / ".config"), str(Path.home() / ".cache")]
    places += ["/var/run/docker.sock", "/run/docker.sock", "/run/dbus", "/etc/shadow-", "/home/*", "/var/lib/docker"]

    async def scenario(sandbox: Sandbox) -> None:
        dump = await sandbox.exec("env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'", output_bytes=1_000_000)
        assert secret not in dump.output and "TROOP_TEST" not in dump.output
        assert str(os.getpid()) not in (await sandbox.exec("ls /proc")).output.split() or os.getpid() < 50
        assert "pytest" not in dump.output
        seen = await sandbox.exec("ls -d " + " ".join(places) + " 2>/dev/null")
        assert seen.stdout == b""
        shadow = await sandbox.exec("cut -d: -f2 /etc/shadow")
        assert b"$" not in shadow.stdout

    inside(provider, scenario)


def test_a_command_has_no_rights_over_the_machine(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        status = (await sandbox.exec("cat /proc/self/status")).output
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        settings = (
            "for f in /proc/sys/kernel/panic /proc/sys/vm/swappiness; do v=$(cat $f); echo $v > $f && echo wrote $f;"
            " done"
        )
        assert b"wrote" not in (await sandbox.exec(settings)).stdout
        assert (await sandbox.exec("mount -t tmpfs none /mnt || mount -o remount,rw /")).exit_code != 0
        assert (
            b"opened"
            not in (await sandbox.exec("for d in /dev/[hsv]d* /dev/mem; do : < $d && echo opened; done")).stdout
        )
        assert (await sandbox.exec("mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk")).exit_code != 0

    inside(provider, scenario)


def test_what_a_command_writes_stays_in_its_sandbox(provider: Provider, tmp_path: Path) -> None:
    mark = f"escaped-{os.urandom(6).hex()}"
    scripts = [
        f"echo x > {place}/{mark}" for place in (WORKDIR, "/tmp", "/usr/lib", "/var/tmp", "/dev/shm", tmp_path, "/")
    ]
    scripts.append(f"cd {WORKDIR}; ln -s ../../../../../../.. up; echo x > up{tmp_path}/{mark}; echo x > up/tmp/{mark}")

    async def scenario(sandbox: Sandbox) -> None:
        for script in scripts:
            await sandbox.exec(script)
        with pytest.raises((OSError, ValueError)):
            await sandbox.read(f"../../../../../../..{tmp_path}/nothing")
        await sandbox.write(f"up/tmp/{mark}-2", b"x")

    inside(provider, scenario)
    for place in (Path("/tmp"), Path("/usr/lib"), Path("/var/tmp"), Path("/dev/shm"), Path("/"), tmp_path):
        assert not [path for path in place.iterdir() if path.name.startswith(mark)]


# ---- files


def test_files_come_back_byte_by_byte(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        content = bytes(range(256)) * 20_000
        await sandbox.write("deep/er/file.bin", content)
        assert await sandbox.read("deep/er/file.bin") == content
        assert await sandbox.read(f"{WORKDIR}/deep/er/file.bin") == content
        assert (await sandbox.exec("stat -c %a deep/er/file.bin")).stdout == b"644\n"
        await sandbox.exec("chmod 750 deep/er/file.bin")
        await sandbox.write("deep/er/file.bin", b"short")
        assert (await sandbox.exec("stat -c '%a %s' deep/er/file.bin")).stdout == b"750 5\n"
        await sandbox.write("deep/er/file.bin", b"", mode=0o600)
        assert (await sandbox.exec("stat -c '%a %s' deep/er/file.bin")).stdout == b"600 0\n"

    inside(provider, scenario)


def test_a_path_that_cannot_be_read_fails_as_the_system_does(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.exec("mkdir d; head -c 1000 /dev/zero > big; mkfifo pipe; echo x > none; chmod 0 none")
        with pytest.raises(FileNotFoundError):
            await sandbox.read("absent")
        with pytest.raises(IsADirectoryError):
            await sandbox.read("d")
        with pytest.raises(PermissionError):
            await sandbox.read("none")
        with pytest.raises(ValueError, match="1000 bytes"):
            await sandbox.read("big", limit=999)
        for special in ("pipe", "/dev/zero", "zero\0byte"):
            with pytest.raises(OSError):
                await sandbox.read(special)
        with pytest.raises(IsADirectoryError):
            await sandbox.write("d", b"x")
        assert (await sandbox.exec("echo alive")).exit_code == 0

    inside(provider, scenario)


def test_an_archive_is_unpacked_with_modes_and_links_over_what_is_there(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.exec("echo old > outside; ln -s outside f; mkdir l")
        content = os.urandom(2_000_000)
        await sandbox.upload(
            archive({"testbed/f": content, "testbed/a/b": b"x"}, mode=0o755, links={"testbed/l": "a/b"})
        )
        assert await sandbox.read("f") == content and await sandbox.read("outside") == b"old\n"
        assert (
            await sandbox.exec("stat -c '%a %F' f; readlink l; test -O f && echo mine")
        ).stdout == b"755 regular file\na/b\nmine\n"
        await sandbox.upload(archive({"testbed/sub/c": b"y"}))
        assert await sandbox.read("sub/c") == b"y"
        with pytest.raises(SandboxFailed, match="archive"):
            await sandbox.upload(b"this is no archive" * 100)

    inside(provider, scenario)


def test_a_snapshot_holds_what_changed_since_the_last_one(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.exec(
            "mkdir -p d .git __pycache__ node_modules; echo a > f; echo b > d/g; ln -s f l; chmod +x d/g"
        )
        await sandbox.exec("touch .git/x __pycache__/x node_modules/x m.pyc; head -c 9000000 /dev/zero > big")
        await sandbox.exec(["touch", b"bytes-\xff".decode("utf-8", "surrogateescape")])
        tree = await sandbox.snapshot()
        assert sorted(tree.files, key=lambda f: f.path) == [
            FileState("bytes-\udcff", b"", 0o644),
            FileState("d/g", b"b\n", 0o755),
            FileState("f", b"a\n", 0o644),
            FileState("l", b"f", 0o777, link=True),
        ]
        assert len(tree.left_out) == 1 and tree.left_out[0].startswith("big: 9000000 bytes")
        again = await sandbox.snapshot()
        assert again.files == () and again.left_out == ()
        # Same size, written within the same tick of the kernel's clock as the look at it.
        for letter in "bcdefghij":
            await sandbox.write("f", letter.encode() + b"\n")
            assert [f.data for f in (await sandbox.snapshot()).files] == [letter.encode() + b"\n"]
        await sandbox.exec("rm -r d l; mkdir l; echo n > l/n; chmod 600 f")
        changed = {f.path: f for f in (await sandbox.snapshot()).files}
        assert changed.keys() == {"d/g", "l", "l/n", "f"}
        assert changed["d/g"].data is None and changed["l"].data is None and changed["f"].mode == 0o600

    inside(provider, scenario)


def test_states_laid_over_a_tree_bring_it_back(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.exec("mkdir x; echo a > a; echo b > x/b; ln -s a l; echo f > file; chmod 755 a")
        states = (await sandbox.snapshot()).files
        await sandbox.exec(
            "rm -rf x a l file; echo x > x; mkdir a; echo deep > a/deep; ln -s /tmp file; echo kept > kept"
        )
        await sandbox.restore([*states, FileState("kept", None), FileState("never/was", None)])
        look = await sandbox.exec("cat a x/b l file; stat -c %a a; readlink l; ls; ls -A /tmp | grep -c b")
        assert look.stdout.decode().split() == ["a", "b", "a", "f", "755", "a", "a", "file", "l", "x", "0"]
        assert (await sandbox.snapshot()).files == (), "what was restored is where the next snapshot counts from"
        await sandbox.write("x/b", b"c\n")
        assert [f.path for f in (await sandbox.snapshot()).files] == ["x/b"]

    inside(provider, scenario)


DEEP = """
import os
for top, depth in (("deep", 1500), ("wide/deep", 40)):
    os.makedirs(top)
    os.chdir(top)
    for n in range(depth):
        open("file", "w").close()
        os.mkdir("d" * 40)
        if n % 10 == 3:
            os.chmod(".", 0o500)
        os.chdir("d" * 40)
    os.chdir("/testbed")
"""


def test_a_tree_too_deep_for_any_path_is_removed(provider: Provider) -> None:
    """By who restores over it, and by who closes the sandbox."""

    async def scenario(sandbox: Sandbox) -> None:
        made = await sandbox.exec(["python3", "-c", DEEP])
        assert made.exit_code == 0, made.output
        assert len((await sandbox.snapshot()).files) > 40
        await sandbox.restore([FileState("deep", b"a file\n"), FileState("wide", None)])
        assert (await sandbox.exec("cat deep; ls")).stdout == b"a file\ndeep\n"
        await sandbox.exec(["python3", "-c", DEEP.replace('"deep"', '"again"')])

    inside(provider, scenario)


def test_a_snapshot_tells_of_so_many_files_and_counts_the_rest(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert (await sandbox.exec("mkdir many; cd many; seq 1 21000 | xargs touch", timeout=300)).exit_code == 0
        tree = await sandbox.snapshot()
        assert len(tree.files) == SNAPSHOT_ENTRIES
        assert tree.left_out == ("1000 more changed files, beyond what one snapshot holds",)
        assert (await sandbox.snapshot()).files == ()
        await sandbox.exec("rm -r many; echo new > new")
        await sandbox.restore([*tree.files, FileState("new", None)])
        assert (await sandbox.exec("ls; ls many | wc -l")).output.split() == ["many", str(SNAPSHOT_ENTRIES)]
        assert (await sandbox.snapshot()).files == ()

    inside(provider, scenario, Limits(memory_mb=600))


# ---- environments


def test_an_environment_is_kept_and_every_sandbox_of_it_writes_for_itself(provider: Provider) -> None:
    key = f"conformance-{os.urandom(6).hex()}"

    async def scenario() -> None:
        assert not await provider.has(key)
        with pytest.raises(SandboxFailed):
            await provider.create(SandboxSpec("conformance", "none", environment=key))
        base = await provider.create(SandboxSpec("conformance", "setup", limits=SMALL))
        await base.upload(
            archive({"testbed/f": b"base\n", "testbed/gone": b"", f"{TROOPDIR[1:]}/base.git/HEAD": b"ref"})
        )
        await base.exec(
            f"mkdir -p {ENVDIR}/bin; printf '#!/bin/sh\\necho tool\\n' > {ENVDIR}/bin/tool; chmod +x {ENVDIR}/bin/tool"
        )
        await base.exec("setsid sleep 300 &")
        await provider.freeze(base, key)
        with pytest.raises(SandboxFailed):
            await base.exec("echo the sandbox is closed")
        try:
            assert await provider.has(key)
            async with sandbox_of(provider, key) as one, sandbox_of(provider, key) as two:
                assert (await one.exec("tool; cat f")).stdout == b"tool\nbase\n"
                assert await one.read(f"{TROOPDIR}/base.git/HEAD") == b"ref"
                assert (await one.snapshot()).files == ()
                await one.exec(f"echo one > f; rm gone; echo n > new; echo x > {ENVDIR}/bin/tool")
                assert {f.path: f.data for f in (await one.snapshot()).files} == {
                    "f": b"one\n",
                    "gone": None,
                    "new": b"n\n",
                }
                assert (await two.exec("cat f; ls; tool")).stdout == b"base\nf\ngone\ntool\n"
                assert (await two.snapshot()).files == ()
            async with sandbox_of(provider, key) as third:
                assert (await third.exec("cat f; ls; tool")).stdout == b"base\nf\ngone\ntool\n"
            again = f"{key}-again"
            changed = await provider.create(SandboxSpec("conformance", "again", environment=key, limits=SMALL))
            await changed.exec("echo second > f; rm gone")
            await provider.freeze(changed, again)
            async with sandbox_of(provider, again) as fourth:
                assert (await fourth.exec("cat f; ls; tool")).stdout == b"second\nf\ntool\n"
            await provider.remove(again)
        finally:
            await provider.remove(key)
        assert not await provider.has(key)
        await provider.remove(key)

    asyncio.run(scenario())


def test_a_bad_key_is_refused(provider: Provider) -> None:
    with pytest.raises(InputError):
        asyncio.run(provider.has("../../etc"))


# ---- ends of sandboxes


def test_a_sandbox_may_be_closed_again_and_then_refuses_all(provider: Provider) -> None:
    async def scenario() -> None:
        sandbox = await provider.create(SandboxSpec("conformance", "box", limits=SMALL))
        running = asyncio.ensure_future(sandbox.exec("sleep 30"))
        await asyncio.sleep(0.2)
        await asyncio.gather(sandbox.close(), sandbox.close())
        await sandbox.close()
        with pytest.raises(SandboxFailed, match="closed"):
            await running
        with pytest.raises(SandboxFailed, match="closed"):
            await sandbox.read("f")

    asyncio.run(scenario())


def test_clean_leaves_living_sandboxes_alone(provider: Provider) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await provider.clean()
        await provider.clean("conformance")
        assert (await sandbox.exec("echo alive")).stdout == b"alive\n"

    inside(provider, scenario)
