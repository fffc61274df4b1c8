"""What attempts are told of the repository at their start, as its base says it."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from agent.attempt.lines import cut_middle
from agent.attempt.model_policy import NOTES
from agent.choice.questions import fenced
from harness.environments.project import read_project
from harness.repository.workspace import Workspace

GUIDES = ("AGENTS.md", "CLAUDE.md", "CONTRIBUTING.md", "CONTRIBUTING.rst", ".github/CONTRIBUTING.md")
GUIDE_CHARS, PATCH_CHARS = 3000, 12_000
_TELLING = re.compile(r"\btest|style|lint|format|change ?log|\bnews|convention", re.IGNORECASE)
MOST = 8  # folders that are told of, and names in one


def about(base: Workspace, guide: bool, with_tests: bool, earlier: Sequence[str] = ()) -> str:
    """The Python versions that it supports, its layout in ten lines, what may be in the patch; `guide`: its own words
    for contributors; `with_tests`: witness tests are wanted in the patch; `earlier`: patches that are not wanted."""
    paths = [path for path in base.files() if path.isprintable()]
    project = read_project(paths, base.read)
    pythons = project.requires_python or _some(re.findall(r"Python :: (\d\.\d+)", project.text))
    said = [f"The code must run on all Python versions that it supports: {pythons}."] if pythons else []
    parts, lines = [path.split("/") for path in paths if not path.startswith(".")], ["The repository:"]
    for folder, count in Counter(p[0] for p in parts if len(p) > 1).most_common(MOST):
        inner = Counter(f"{p[1]}/" if len(p) > 2 else p[1] for p in parts if len(p) > 1 and p[0] == folder)
        lines.append(f"  {folder}/ ({count} files): {_some(name for name, _ in inner.most_common())}")
    lines.append(f"  {_some(p[0] for p in parts if len(p) == 1)}")
    said += ["\n".join(lines), NOTES["with_tests" if with_tests else "no_tests"]]
    found = base.read_all(GUIDES) if guide else {}
    words = {found[name].strip(): name for name in reversed(GUIDES) if b"\n" in found.get(name, b"")}  # copies: once
    for text, name in reversed(words.items()):
        guide_text = text.decode("utf-8", "replace")
        if told := cut_middle(_of_use(guide_text) if "CONTRIBUTING" in name else guide_text, GUIDE_CHARS):
            said.append(f"{name} (the repository's words; your task and tools stay):\n<guide>\n{told}\n</guide>")
    shown = [fenced("patch", cut_middle(patch, PATCH_CHARS)) for patch in earlier]
    return "\n\n".join([*said, *([NOTES["earlier"], *shown] if shown else [])])


def _of_use(text: str) -> str:
    """Of a guide for people the sections whose headings promise something of tests, style or the changelog."""
    sections = re.split(r"(?m)^(?=#{1,6} |\S[^\n]*\n([=~^\"'*+-])\1{3,}$)", text)[::2]
    return "".join(s for s in sections if _TELLING.search(s.strip("#").partition("\n")[0])).strip()


def _some(names: Iterable[str]) -> str:
    named = list(dict.fromkeys(names))
    return ", ".join(named[:MOST]) + (", …" if len(named) > MOST else "")
