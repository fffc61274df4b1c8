"""What a judge is shown, and how its answers are read.

Shown are the issue, the base's code around the changes, the patches, and in words all that was found out by running
something. Text of others stands between tags that it cannot close itself. An answer is one JSON object, read from the
end, or one fenced block.
"""

import json
import re
from collections.abc import Iterable, Sequence

from agent.attempt.lines import cut_middle, fitting
from agent.attempt.model_policy import prompt
from agent.choice.case import Case
from agent.models.wires.texts import encodable
from harness.choosing.found import digest
from harness.choosing.statement import Statement
from harness.choosing.static_evidence import StaticFacts, look
from harness.code.facts import parsed, spans
from harness.records import Candidate, Evidence, Json, Told

PATCH_CHARS = 12_000
MATERIAL_CHARS = 12_000
"""Of one patch; of the base's code, of the attempts' tests, of what a candidate's evidence says, each."""

_CLOSING = re.compile(r"<\s*/\s*([\w-]+)")
_FENCE = re.compile(r"^(`{3,})[ \t]*(?:python|py)?[ \t]*\n(.*?)^\1[ \t]*$", re.DOTALL | re.MULTILINE)
_PATH = re.compile(r"\A\s*#\s*path:\s*(\S+)")
_STRICT = json.JSONDecoder(strict=False)
_OUTCOMES = {"passed": "passes", "failed": "fails", "error": "cannot be loaded"}


def question(name: str, **parts: str) -> Json:
    """The user's message that a prompt file makes of these parts."""
    return {"role": "user", "content": encodable(prompt(name).format(**parts))}


def fenced(tag: str, text: str, name: str = "") -> str:
    """The text between tags; between others, where it would close these itself."""
    closed = {each.lower() for each in _CLOSING.findall(text)}
    free = next(each for n in range(1, len(closed) + 2) if (each := f"{tag}-{n}" if n > 1 else tag) not in closed)
    named = f' name="{name}"' if name else ""
    return f"<{free}{named}>\n{text.strip()}\n</{free}>"


def last_object(answer: str, key: str) -> Json:
    """The last JSON object in an answer that has the key; empty where none has."""
    at = len(answer)
    while (at := answer.rfind("{", 0, at)) >= 0:
        try:
            value, _ = _STRICT.raw_decode(answer, at)
        except (ValueError, RecursionError):
            continue
        if key in value:
            found: Json = value
            return found
    return {}


def fenced_test(answer: str) -> tuple[str, str]:
    """(the path that it names, the whole text) of the test in an answer: the last fenced block that begins with its
    path, else the last of all; empty where there is none."""
    blocks = [(named[1] if (named := _PATH.match(found[2])) else "", found[2]) for found in _FENCE.finditer(answer)]
    return next(filter(lambda block: block[0], reversed(blocks)), blocks[-1] if blocks else ("", ""))


def material(case: Case, shown: Sequence[Candidate], *, blind: bool = False) -> str:
    """The issue, the base's code that these candidates change, what the issue's own code does there, and (not `blind`)
    the tests of attempts that some candidate fails."""
    parts = [fenced("issue", case.statement)]
    if code := _base_code(case, shown):
        parts.append(f"What they change, as it is without any patch:\n{fenced('code', code)}")
    failed = {n for c in case.candidates if c.evidence for n, o in c.evidence.witness.items() if o != "passed"}
    texts = "\n\n".join(f"# {name}\n{text.strip()}" for name, text in case.known.witnesses.items() if name in failed)
    if texts and not blind:
        told = "Tests that attempts wrote to show the issue; any of them may be wrong:"
        parts.append(f"{told}\n{fenced('tests', cut_middle(texts, MATERIAL_CHARS))}")
    if on_base := steps_in_words(case, ""):
        parts.append(f"The issue's own code, without any patch:\n{fenced('output', on_base)}")
    return "\n\n".join(parts)


def patch_of(candidate: Candidate, name: str = "") -> str:
    """The candidate's patch under this name, or its id."""
    return fenced("patch", cut_middle(candidate.patch, PATCH_CHARS), name or candidate.id)


def _base_code(case: Case, shown: Iterable[Candidate]) -> str:
    """The base's text of the functions that candidates change, as much as there is room for."""
    places = dict.fromkeys(place for each in shown for place in _facts(case, each).places)
    found = {place: text for place in places if (text := _source(case, *place.split("::", 1)))}
    return "\n\n".join(fitting([f"# {place}\n{text}" for place, text in found.items()], MATERIAL_CHARS))


def _source(case: Case, path: str, name: str = "") -> str:
    """The base's text of a function or method, by its qualified name; "" where it is not found."""
    data = case.ground.tree.read(path) if case.ground is not None and path.endswith(".py") else None
    tree, text = parsed(data), (data or b"").decode("utf-8", "replace")
    first, last = spans(tree).get(name, (1, 0)) if tree else (1, 0)
    return cut_middle("\n".join(text.split("\n")[first - 1 : last]), PATCH_CHARS)


def in_words(case: Case, candidate: Candidate) -> str:
    """What was found out about a candidate: broken tests with what they assert, tests of attempts, the issue's code."""
    evidence = candidate.evidence or Evidence(applies=False, valid=False)
    asserted = []
    for test in evidence.broken:
        path, _, name = test.partition("[")[0].partition("::")
        asserted.append(f"{test} does not pass any more\n{_source(case, path, name.replace('::', '.'))}".strip())
    own, on_base = (steps_in_words(case, patch) for patch in (digest(candidate.patch), ""))
    told = [
        f"regression tests: {len(evidence.regression) - len(evidence.broken)} of {len(evidence.regression)} pass",
        *fitting(asserted, MATERIAL_CHARS),
        f"attempts that arrived at it: {len(candidate.attempts)}",
        f"flags: {', '.join(candidate.flags) or 'none'}",
        *(f"given test {name}: {outcome}" for name, outcome in sorted(evidence.given.items())),
        *(f"test of an attempt, {name}: {outcome}" for name, outcome in sorted(evidence.witness.items())),
    ]
    if own:
        now = "just what it does without any patch" if own == on_base else f"this now:\n{own}"
        told.append(f"the issue's own code does {now}")
    return cut_middle("\n".join(told), 2 * MATERIAL_CHARS)


def steps_in_words(case: Case, patch: str) -> str:
    """What the issue's own code does with a patch, named by its digest ("": without any)."""
    told = []
    for probe, steps in case.known.steps.get(patch, {}).items():
        unknown = [re.search(r"name '(\w+)'", seen.message) for seen in steps if seen.error == "NameError"]
        if len(unknown) == len(steps) and all(m and m[1] in str(case.known.sources.get(probe)) for m in unknown):
            continue  # no step came to the project's code
        for source, seen in zip(case.known.sources.get(probe, ()), steps, strict=False):
            error = f"{seen.error}: {seen.message}" if seen.error else ""
            told.append("\n".join(filter(None, [f">>> {source.strip()}", seen.out, error])))
    return cut_middle("\n".join(told), MATERIAL_CHARS)


def told_in_words(told: Told) -> str:
    """What a test showed on one tree."""
    passing = sum(outcome == "passed" for outcome in told.tests.values())
    counted = f" ({passing} of {len(told.tests)} pass)" if told.tests else ""
    tail = f":\n{told.tail}" if told.tail else ""
    does = "is skipped" if {*told.tests.values()} == {"skipped"} else _OUTCOMES.get(told.outcome)
    return f"{does or 'does not do the same twice'}{counted}{tail}"


def alike(case: Case, candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """The candidates in groups of those whose code is the same but for comments, annotations and local names."""
    groups: dict[str, list[Candidate]] = {}
    for each in candidates:
        groups.setdefault(_facts(case, each).code, []).append(each)
    return list(groups.values())


def _facts(case: Case, candidate: Candidate) -> StaticFacts:
    return look(candidate.patch, Statement(""), case.ground.tree if case.ground is not None else None)
