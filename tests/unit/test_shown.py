"""What tests showed of candidates: which rows there are, and what all rows say together."""

from __future__ import annotations

import random
from typing import Any

import pytest

from harness.choosing.behaviour import probe_rows
from harness.choosing.found import Base, Found, InstanceEvidence, digest
from harness.choosing.pool import Sample
from harness.choosing.probing import Seen
from harness.choosing.static_evidence import StaticFacts
from harness.evidence.guesses import GUESSED, guesses, weights_of
from harness.evidence.shown import Shown, left_as_was, of_evidence, of_judge, votes
from harness.records import Candidate, Evidence, Told, WitnessTest


def row(outcomes: str, author: int | None = None, weight: float = 1.0, name: str = "w") -> Shown:
    """`outcomes`: of c1, c2, …; 1 passed, 0 failed, - unknown."""
    words = {"1": "passed", "0": "failed"}
    found = {f"c{n}": words[x] for n, x in enumerate(outcomes, 1) if x in words}
    return Shown("witness", name, found, () if author is None else (author,), weight)


def attempts(*of_each: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"c{n}": each for n, each in enumerate(of_each, 1)}


def verified(name: str, **seen: Any) -> Candidate:
    return Candidate(name, "", (0,), evidence=Evidence(True, True, **seen))


def test_the_rows_of_the_verification_are_its_given_and_witness_tests() -> None:
    rows = of_evidence(
        [
            verified("c1", given={"t": "passed"}, witness={"2:a.py": "passed", "0:b.py": "failed"}),
            verified("c2", given={"t": "passed"}, witness={"2:a.py": "failed"}),
        ],
        {"0:b.py": 0.5},
    )
    assert [(r.kind, r.name, r.authors, r.weight) for r in rows] == [
        ("given", "t", (), 1.0),
        ("witness", "2:a.py", (2,), 1.0),
        ("witness", "0:b.py", (0,), 0.5),
    ]
    assert rows[1].outcomes == {"c1": "passed", "c2": "failed"} and rows[2].outcomes == {"c1": "failed"}


def test_a_witness_that_ran_on_no_candidate_is_none() -> None:
    pair = [verified("c1", witness={"0:w": "error"}), verified("c2", witness={"0:w": "missing"})]
    assert of_evidence(pair) == ()
    assert len(of_evidence([*pair, verified("c3", witness={"0:w": "failed"})])) == 1


def test_a_test_of_the_judge_counts_if_it_fails_on_the_base_steadily_and_tells_candidates_apart() -> None:
    def told(base: str, *outcomes: str) -> list[Told]:
        return [Told("base", base), *(Told(f"c{n}", outcome) for n, outcome in enumerate(outcomes, 1))]

    (found,) = of_judge("t.py", told("failed", "passed", "failed"))
    assert (found.kind, found.outcomes, found.authors) == ("judge", {"c1": "passed", "c2": "failed"}, ())
    assert of_judge("t.py", told("passed", "passed", "failed")) == (), "what passes on the base shows no issue"
    assert of_judge("t.py", told("error", "passed", "error")) == (), "it wants a name that the judge made up"
    assert of_judge("t.py", told("failed", "passed", "passed")) == ()
    assert of_judge("t.py", told("failed", "unsteady", "passed")) == ()
    assert of_judge("t.py", told("failed", "passed", "failed")[1:]) == (), "nothing is known of the base"
    parts = [
        Told("base", "failed", {"a": "failed", "b": "failed", "c": "passed", "d": "failed"}),
        Told("c1", "failed", {"a": "passed", "b": "failed", "c": "passed", "d": "passed"}),
        Told("c2", "failed", {"a": "failed", "b": "passed", "c": "failed", "d": "passed"}),
    ]
    each = of_judge("t.py", parts)
    assert [(r.name, r.weight) for r in each] == [("t.py/a", 0.5), ("t.py/b", 0.5)], "one file has one voice"


# What all rows say together


def test_what_says_nothing_moves_nobody() -> None:
    assert votes([], attempts((0,), (1,))) == {"c1": 0.0, "c2": 0.0}
    assert votes([row("11", 0), row("00", 1)], attempts((0,), (1,))) == {"c1": 0.0, "c2": 0.0}


def test_ones_own_witness_counts_less_than_anothers() -> None:
    two = attempts((0,), (1,))
    own, others = votes([row("10", 0)], two), votes([row("10", 7)], two)
    assert 0 < own["c1"] - own["c2"] < others["c1"] - others["c2"]
    tie = votes([row("10", 0), row("01", 1)], two)
    assert tie["c1"] == tie["c2"], "each passes its own and fails the other's"
    against = votes([row("10", 0), row("01", 7)], two)
    assert against["c2"] > against["c1"], "an independent test outweighs one's own"


def test_what_another_attempt_came_to_as_well_has_more_to_say() -> None:
    found = votes([row("10", 0), row("01", 2)], attempts((0, 1), (2,)))
    assert found["c1"] > found["c2"]


def test_one_biased_witness_is_outvoted_and_then_says_nothing() -> None:
    of_each = attempts((0,), (1,), (2,), (3,), (4,))
    sound = [row("11110", n) for n in range(4)]
    found = votes([*sound, row("00001", 4)], of_each)
    assert found["c5"] < 0 < found["c1"] and found["c1"] == found["c4"]
    assert votes([*sound, row("10001", 4)], of_each)["c5"] < votes([*sound, row("10001", 4)], of_each)["c2"]


def test_a_guess_that_attempts_copied_does_not_outvote_what_is_stated() -> None:
    """Three attempts agree with each other on a wording; each wrote a test of it. The fourth's test asserts what the
    issue says, and theirs fail it."""
    of_each = attempts((0,), (1,), (2,), (3,))
    text = "def test():\n    with pytest.raises(ValueError, match='{}'):\n        f({})\n"
    tests = [WitnessTest(n, "test_w.py", text.format("please give a list", n)) for n in range(3)]
    tests.append(WitnessTest(3, "test_w.py", text.format("bad value", 3)))
    weights = weights_of(tests, ["f(1) should raise ValueError: bad value"])
    assert weights == {f"{n}:test_w.py": GUESSED / 3 for n in range(3)} | {"3:test_w.py": 1.0}

    def rows(of_guess: float) -> list[Shown]:
        return [*(row("1110", n, of_guess) for n in range(3)), row("0001", 3)]

    found = votes(rows(weights["0:test_w.py"]), of_each)
    assert found["c4"] > found["c1"] == found["c3"]
    taken_for_stated = votes(rows(1.0), of_each)
    assert taken_for_stated["c4"] < taken_for_stated["c1"], "only the weight of a guess makes the difference"


def test_whoever_passes_more_never_has_less() -> None:
    rng = random.Random(5)
    for _ in range(300):
        count = rng.randint(2, 6)
        of_each = attempts(*((n, *range(20, 20 + rng.randint(0, 2))) for n in range(count)))
        rows = [
            row("".join(rng.choice("01") for _ in range(count)), rng.randint(0, 7)) for _ in range(rng.randint(1, 8))
        ]
        odds = votes(rows, of_each)
        passed = {i: {n for n, r in enumerate(rows) if r.outcomes[i] == "passed"} for i in of_each}
        for one in of_each:
            for other in of_each:
                assert not passed[one] >= passed[other] or odds[one] >= odds[other]


def test_among_sixteen_attempts_the_right_ones_are_found_though_most_are_wrong() -> None:
    """Five right patches and eleven that are wrong in ways of their own; a right one's test passes on right patches and
    now and then on a wrong one, a wrong one's test on its own patch and at random."""
    rng, hits = random.Random(1), 0
    for _ in range(50):
        right = [n < 5 for n in range(16)]
        rows = []
        for author in range(16):
            told = [
                good or rng.random() < 0.15 if right[author] else n == author or rng.random() < 0.3
                for n, good in enumerate(right)
            ]
            rows.append(row("".join("01"[each] for each in told), author))
        odds = votes(rows, attempts(*((n,) for n in range(16))))
        best = max(odds, key=lambda name: odds[name])
        hits += right[int(best[1:]) - 1]
    assert hits >= 48


# Guesses


KNOWN = "total([1, 2]) gives 2, it should be 3. ValueError: bad value given def f(): raise KeyError('no such key: %s')"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("assert total([1, 2]) == 3", set()),
        ("assert total([5, 6]) == 11", {"11"}),
        ("assert total([]) == 0", set()),
        ("assert headings('docutils', 'zope') == ['D', 'Z']", set()),
        ("assert total(x for x in ()) is None", set()),
        ("name = 'abc'\n    assert f(name)['k'] == 'abc'", set()),
        ("assert 'please give a list' in str(error.value)", {"please give a list"}),
        ("assert 'no such key: q' in str(error.value)", set()),
        ("self.assertEqual(total([1, 2]), 4)", {"4"}),
        ("pytest.raises(ValueError, f)", set()),
        ("pytest.raises(TypeError, f)", {"TypeError"}),
        ("pytest.raises(ValueError, match='bad value.*given')", set()),
        ("pytest.raises(ValueError, match='bad value.*in a list')", {"in a list"}),
        ("path.write_bytes(b'one\\r\\ntwo')\n    assert load(path) == b'one\\r\\ntwo'", set()),
        ("assert load(path) == b'six\\r\\nten'", {"six ten"}),
        ("assert code('total(%s)' % 1) == 'total[%s]' and code(1)[-1] == ']'", set()),
        ("assert code(total(x, 3)) == 'total[3, x]'", set()),
        ("assert code(total(x, 3)) == 'sum[3, x]'", {"sum[3, x]"}),
    ],
)
def test_a_guess_is_what_neither_the_issue_nor_the_base_says(body: str, found: set[str]) -> None:
    assert guesses(f"def test(self):\n    {body}\n", KNOWN) == found


def test_what_a_test_defines_itself_and_a_number_written_otherwise_are_no_guesses() -> None:
    """Files of mode 0o644; a model that the test names."""
    own = "class Beetle:\n    pass\n\n\ndef test():\n    assert show(Beetle()) == 'Beetle'\n"
    assert guesses(own, "") == set() and guesses(own.replace("'Beetle'", "'Bug'"), "") == {"Bug"}
    assert guesses("def test():\n    assert mode() == 420\n", "the default is 0o644, not 0x1ff") == set()
    assert guesses("def test():\n    assert mode() == 511\n", "the default is 0o644, not 0x1ff") == set()
    assert guesses("def test():\n    assert mode() == 421\n", "the default is 0o644, not 0x1ff") == {"421"}
    assert guesses("def test():\n    assert mode() == 421\n", "0x" + "f" * 5000) == {"421"}


def test_a_test_in_another_language_holds_no_guess_that_could_be_seen() -> None:
    assert weights_of([WitnessTest(0, "a.test.js", "test('x', () => { expect(f()).toBe(7) })")], [""]) == {
        "0:a.test.js": 1.0
    }


# The issue's own code


def test_a_step_shows_who_does_what_is_asked_and_who_does_what_the_base_did() -> None:
    base = Base("f() raises ValueError: bad\nIt should give 42.\n", {"session": (Seen("", "ValueError"), Seen("7"))})
    patches = {"c1": "same", "c2": "mends", "c3": "other", "c4": "unknown"}
    facts = StaticFacts("clean", "", (), ())
    did = {
        "c1": {"session": (Seen("", "ValueError"), Seen("7"))},
        "c2": {"session": (Seen("42"), Seen("7"))},
        "c3": {"session": (Seen("", "TypeError"), Seen("8"))},
    }
    found = {digest(text): Found(facts, did.get(name)) for name, text in patches.items()}
    samples = tuple(Sample("i", text, "m", text) for text in patches.values())
    evidence = InstanceEvidence("i", samples, base, found)
    (step,) = probe_rows(evidence, patches)
    assert (step.kind, step.name, step.outcomes) == ("probe", "session/0", {"c1": "failed", "c2": "passed"})
    assert left_as_was([step], patches) == {"c1": 1, "c2": 0, "c3": 0, "c4": 0}
    assert left_as_was([step], ("c1", "c3")) == {"c1": 0, "c3": 0}, "nobody among these does what is asked"
    steady = InstanceEvidence("i", samples, Base(base.statement, base.probes, unsteady=("session/0",)), found)
    assert probe_rows(steady, patches) == (), "the base does something else each time"
