"""Package index settings for set-up: read as pip and uv would, without secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from harness.sandbox.index import IndexSettings, index_settings


def settings_in(environ: dict[str, str]) -> IndexSettings:
    with mock.patch.dict(os.environ, environ, clear=True):
        return index_settings()


def pip_conf(home: Path, text: str) -> dict[str, str]:
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text(text)
    return {"HOME": str(home), "XDG_CONFIG_DIRS": str(home / "none")}


def test_files_and_variables_are_read_and_variables_win(tmp_path: Path) -> None:
    environ = pip_conf(
        tmp_path, "[global]\nindex-url = https://a.invalid/simple\nextra-index-url = https://b.invalid/s\n"
    )
    environ |= {"PIP_EXTRA_INDEX_URL": "https://c.invalid/s https://d.invalid/s", "PIP_DEFAULT_TIMEOUT": "7"}
    env = settings_in(environ).env
    assert env["PIP_INDEX_URL"] == env["UV_DEFAULT_INDEX"] == "https://a.invalid/simple"
    assert env["PIP_EXTRA_INDEX_URL"] == env["UV_INDEX"] == "https://c.invalid/s https://d.invalid/s"
    assert env["PIP_DEFAULT_TIMEOUT"] == "7"
    assert env["PIP_CONFIG_FILE"] == "/dev/null"


def test_an_index_with_a_password_is_left_out_and_named_without_it(tmp_path: Path) -> None:
    environ = pip_conf(tmp_path, "[global]\nindex-url = https://me:hunter2@secret.invalid/simple\n")
    environ |= {
        "UV_INDEX": "corp=https://token@other.invalid/simple",
        "HTTPS_PROXY": "http://me:hunter2@proxy.invalid:3128",
    }
    settings = settings_in(environ)
    assert "PIP_INDEX_URL" not in settings.env and "HTTPS_PROXY" not in settings.env
    assert not [value for value in settings.env.values() if "hunter2" in value or "token" in value]
    notes = " ".join(settings.notes)
    assert (
        "secret.invalid" in notes and "other.invalid" in notes and "proxy.invalid" in notes and "hunter2" not in notes
    )


def test_local_indexes_and_links_are_shown_with_the_files_they_point_to(tmp_path: Path) -> None:
    index, files, links = tmp_path / "index/simple", tmp_path / "index/files", tmp_path / "links"
    (index / "name").mkdir(parents=True)
    files.mkdir()
    links.mkdir()
    (index / "name/index.html").write_text('<a href="../../files/name-1.tar.gz#sha256=0">name-1.tar.gz</a>')
    environ = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    settings = settings_in(environ | {"UV_INDEX": index.as_uri(), "PIP_FIND_LINKS": str(links)})
    assert set(settings.folders) == {index, files, links}


def test_a_home_or_what_homes_lie_in_is_never_shown(tmp_path: Path) -> None:
    home = tmp_path / "home/me"
    (home / "simple/name").mkdir(parents=True)
    (home / "simple/name/index.html").write_text('<a href="../../name-1.tar.gz">name-1.tar.gz</a>')
    (tmp_path / "also-home").symlink_to(home)
    for place in ("/", str(tmp_path), str(home), str(tmp_path / "also-home"), f"file://{home}/simple/../"):
        environ = {"HOME": str(home), "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": place}
        settings = settings_in(environ)
        assert (settings.folders, settings.files) == ((), ()), place
        assert "not shown to set-up" in settings.notes[0], place
    pointing = settings_in({"HOME": str(home), "PIP_CONFIG_FILE": "/dev/null", "UV_INDEX": f"file://{home}/simple"})
    assert pointing.folders == (home / "simple",)
    assert str(home) in pointing.notes[0]


def test_of_a_file_of_links_only_it_and_its_archives_are_shown(tmp_path: Path) -> None:
    for name in ("name-1.whl", "other-1.tar.gz", "key.pem", "single-1.whl"):
        (tmp_path / name).touch()
    page = tmp_path / "links.html"
    page.write_text('<a href="name-1.whl">n</a> <a href="key.pem">k</a> <a href="https://x.invalid/y.whl">y</a>')
    environ = {"HOME": "/nonexistent", "PIP_CONFIG_FILE": "/dev/null"}
    settings = settings_in(environ | {"PIP_FIND_LINKS": f"{page} {tmp_path / 'single-1.whl'}"})
    assert settings.folders == ()
    assert settings.files == (page, tmp_path / "name-1.whl", tmp_path / "single-1.whl")


def test_uv_files_count_and_broken_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / ".config/uv").mkdir(parents=True)
    file = tmp_path / ".config/uv/uv.toml"
    file.write_text('[[index]]\nurl = "https://u.invalid/simple"\ndefault = true\n')
    assert settings_in({"HOME": str(tmp_path)}).env["UV_DEFAULT_INDEX"] == "https://u.invalid/simple"
    file.write_text("[[index]\n")
    assert any(str(file) in note for note in settings_in({"HOME": str(tmp_path)}).notes)


def test_a_bundle_of_certificates_reaches_every_tool(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("certificates")
    settings = settings_in({"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null", "SSL_CERT_FILE": str(bundle)})
    assert settings.files == (bundle,) and settings.certificates == bundle
    assert settings.env["PIP_CERT"] == settings.env["SSL_CERT_FILE"] == settings.env["GIT_SSL_CAINFO"] == str(bundle)


def test_threads_that_ask_for_uv_at_the_same_time_all_get_it() -> None:
    asked = """
import sys, threading
from harness.sandbox.index import uv_binary
found = []
threads = [threading.Thread(target=lambda: found.append(uv_binary())) for _ in range(8)]
sys.setswitchinterval(1e-6)
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), len(set(found)))
"""
    # A Python that has not asked yet: only the first answers of a process were ever wrong.
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["8", "1"], done.stderr
