"""Rows of SWE-bench on released source archives, where no clone of a repository is to be had.

    python -m tests.bench.releases_as_rows --dataset lite.jsonl --repo django/django --package django --out DIR [ID…]

A row is kept if its patch and its test patch apply to one of the package's releases near its date; its base is then
that release, as a commit of `DIR/owner__name.git`. The rows, with these bases, are written to `DIR/rows.jsonl`: for

    troop images build swe-bench-lite --dataset DIR/rows.jsonl --mirrors DIR
    troop grade swe-bench-lite --dataset DIR/rows.jsonl --mirrors DIR --predictions gold

Which tests fail and pass on such a base is as recorded for the true one, so a few rows may not resolve by their gold
patch: grade gold first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from harness.cache import cache_root
from tasks.package import unpack
from tasks.package_index import Index

WITHOUT = ("-c", "user.name=Troop", "-c", "user.email=troop@example.com", "-c", "core.autocrlf=false")


def git(*arguments: str, cwd: Path, text: str = "", date: str = "") -> str:
    """Standard output of a git command, which commits as of the date; CalledProcessError where it fails."""
    dated = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date} if date else {}
    done = subprocess.run(
        ["git", *WITHOUT, *arguments],
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **dated},
    )
    return done.stdout


def sources(package: str) -> list[str]:
    """Versions that have a source archive on the index, alphas and candidates as well, the oldest first."""
    name = re.compile(rf"{package}-(\d+\.\d+(?:\.\d+)?(?:(?:a|b|rc)\d+)?)\.tar\.gz", re.IGNORECASE)
    found = {match[1] for release in Index.of_pip().releases(package) if (match := name.fullmatch(release.filename))}
    return sorted(found, key=order)


def order(version: str) -> tuple[int, int, int, str, int]:
    """A version as something to sort by: 3.1a1 before 3.1rc1 before 3.1 before 3.1.1."""
    numbers, stage, count = re.fullmatch(r"([\d.]+?)(?:(a|b|rc)(\d+))?", version).groups()  # type: ignore[union-attr]
    parts = [int(part) for part in numbers.split(".")] + [0]
    return parts[0], parts[1], parts[2], stage or "s", int(count or 0)


def near(version: str, versions: list[str]) -> list[str]:
    """Releases on which a row of that version may apply: the first of it, then those of the version before."""
    own = [v for v in versions if order(v)[:2] == order(version)[:2]][:3]
    earlier = [v for v in versions if order(v)[:2] < order(version)[:2]]
    before = [v for v in earlier if order(v)[:2] == order(earlier[-1])[:2]] if earlier else []
    return [*own, *before[::-1][:4], *before[:2]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--package", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("ids", nargs="*")
    known = parser.parse_args()
    rows = [json.loads(line) for line in known.dataset.read_text(encoding="utf-8").splitlines()]
    rows = [r for r in rows if r["repo"] == known.repo and (not known.ids or r["instance_id"] in known.ids)]
    mirror = known.out / f"{known.repo.replace('/', '__')}.git"
    mirror.mkdir(parents=True, exist_ok=True)
    git("init", "--quiet", "--bare", cwd=mirror)
    versions, commits, kept = sources(known.package), dict[str, str](), list[dict[str, Any]]()
    for row in rows:
        for version in near(row["version"], versions):
            if version not in commits:
                commits[version] = _commit(mirror, known.package, version)
            if _applies(mirror, commits[version], row["patch"], row["test_patch"]):
                kept.append(row | {"base_commit": commits[version], "environment_setup_commit": commits[version]})
                print(f"{row['instance_id']}: {version}", flush=True)
                break
        else:
            print(f"{row['instance_id']}: on no release", flush=True)
    (known.out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    print(f"{len(kept)} of {len(rows)} rows")


def _commit(mirror: Path, package: str, version: str) -> str:
    """The release as a commit of the mirror, tagged, as old as the youngest file of its archive."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        unpack(f"{package}=={version}", tree, cache=cache_root() / "archives")
        date = f"@{max(int(path.lstat().st_mtime) for path in tree.rglob('*') if path.is_file())} +0000"
        place = (f"--git-dir={mirror}", f"--work-tree={tree}")
        git(*place, "read-tree", "--empty", cwd=tree)
        git(*place, "add", "--all", "--force", ".", cwd=tree)
        made = git(*place, "write-tree", cwd=tree).strip()
    commit = git("commit-tree", made, "-m", f"{package} {version}", cwd=mirror, date=date).strip()
    git("tag", "--force", version, commit, cwd=mirror)
    git("update-ref", "refs/heads/main", commit, cwd=mirror)
    return commit


def _applies(mirror: Path, commit: str, *patches: str) -> bool:
    git("read-tree", commit, cwd=mirror)
    try:
        for patch in patches:
            git("apply", "--cached", "-", cwd=mirror, text=patch)
    except subprocess.CalledProcessError:
        return False
    return True


if __name__ == "__main__":
    main()
