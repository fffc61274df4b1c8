"""The ranker, what it is fitted on, and how its choices are measured."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from harness.choosing import features
from harness.choosing.features import CandidateFeatures
from harness.choosing.found import Base, Found, InstanceEvidence, Steps, digest
from harness.choosing.pool import Sample
from harness.choosing.probing import Seen
from harness.choosing.ranker import SHIPPED, Weights, read_weights
from harness.choosing.static_evidence import StaticFacts
from tasks.errors import InputError
from tests.bench.evidence import NAMES, NearEvidence, TestFacts, evidence_of, evidence_so_far, rows, write_found
from tests.bench.fitting import (
    CIRCUMSTANCES,
    Choice,
    Labelled,
    choices,
    cross,
    fit,
    platt,
    recovery,
    reliability,
    write_weights,
)
from tests.bench.graded import Graded

FACTS = StaticFacts("clean", "", ("x.py::f",), ("x.py",))


def patch(new: str) -> str:
    return f"diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,2 @@\n def f():\n-    a\n+    {new}\n"


def evidence(base: Base, *candidates: tuple[str, str, Found]) -> InstanceEvidence:
    """(model, what the patch puts in, what was found) each."""
    samples = tuple(Sample("i", f"{m}/{n}", m, patch(new)) for n, (m, new, _) in enumerate(candidates))
    return InstanceEvidence("i", samples, base, {digest(patch(new)): found for _, new, found in candidates})


def found(code: str, *, probes: Steps | None = None) -> Found:
    return Found(replace(FACTS, code=code), probes)


def held(evidence: InstanceEvidence, *tests: TestFacts) -> NearEvidence:
    """With what the near tests say on each of the candidates, in order."""
    of_each = dict(zip(evidence.patches, tests, strict=True))
    return NearEvidence(evidence.instance, evidence.samples, evidence.base, evidence.found, ("t",), of_each)


def by_source(evidence: InstanceEvidence) -> dict[str, CandidateFeatures]:
    return {source: row for row in rows(evidence) for source in row.sources}


def test_samples_of_the_same_code_are_one_candidate_with_all_their_sources() -> None:
    table = rows(evidence(Base(), ("a", "b", found("1")), ("b", "b  # note", found("1")), ("c", "c", found("2"))))
    assert [row.sources for row in table] == [("a/0", "b/1"), ("c/2",)]


def test_agreement_among_models_counts_more_than_repeats_of_one() -> None:
    repeats = by_source(
        evidence(
            Base(), ("a", "b", found("1")), ("a", "b ", found("1")), ("c", "c", found("2")), ("d", "d", found("3"))
        )
    )
    models = by_source(
        evidence(
            Base(), ("a", "b", found("1")), ("b", "b ", found("1")), ("c", "c", found("2")), ("d", "d", found("3"))
        )
    )
    assert (
        models["a/0"].absolute["same-code"]
        > repeats["a/0"].absolute["same-code"]
        > repeats["c/2"].absolute["same-code"]
    )


def test_features_are_relative_to_the_instance() -> None:
    table = rows(evidence(Base(), ("a", "b", found("1")), ("b", "c", found("2"))))
    for name in NAMES:
        assert sum(row.relative[name] for row in table) == pytest.approx(0.0)


STATEMENT = "f() raises ValueError: bad\nIt should give 42.\n"


def probed(*outcomes: tuple[str, str]) -> dict[str, tuple[Seen, ...]]:
    return {"session": tuple(Seen(out, error) for out, error in outcomes)}


def test_probes_tell_who_mends_who_changes_nothing_and_who_breaks_more() -> None:
    base = Base(STATEMENT, probed(("", "ValueError"), ("7", "")))
    table = by_source(
        evidence(
            base,
            ("a", "b", found("1", probes=probed(("42", ""), ("7", "")))),
            ("b", "c", found("2", probes=probed(("", "ValueError"), ("7", "")))),
            ("c", "d", found("3", probes=probed(("", "TypeError"), ("7", "")))),
        )
    )
    mends, same, worse = (table[s].absolute for s in ("a/0", "b/1", "c/2"))
    assert (mends["error-gone"], same["error-gone"], worse["error-gone"]) == (1.0, 0.0, 0.0)
    assert (mends["like-base"], same["like-base"], worse["like-base"]) == (0.0, 1.0, 0.0)
    assert (mends["new-crash"], same["new-crash"], worse["new-crash"]) == (0.0, 0.0, 1.0)


def test_an_error_that_the_patch_raises_on_purpose_is_no_crash() -> None:
    base = Base("f('x') should fail\n", probed(("1", "")))
    table = by_source(
        evidence(
            base,
            ("a", "raise KeyError('x')", found("1", probes=probed(("", "KeyError")))),
            ("b", "c", found("2", probes=probed(("", "NameError")))),
        )
    )
    assert (table["a/0"].absolute["new-crash"], table["b/1"].absolute["new-crash"]) == (0.0, 1.0)


def test_steps_that_the_base_does_differently_each_time_are_no_evidence() -> None:
    base = Base(STATEMENT, probed(("0.123", "")), unsteady=("session/0",))
    table = rows(evidence(base, ("a", "b", found("1", probes=probed(("0.456", ""))))))
    assert table[0].absolute["same-behaviour"] == table[0].absolute["like-base"] == 0.0


def test_tests_that_one_candidate_breaks_alone_count_apart_from_those_that_many_break() -> None:
    broken = (("t1",), ("t1", "t2"), ("t1",), ("t1",))
    known = evidence(Base("x"), *((m, m, found(m)) for m in "abcd"))
    table = by_source(held(known, *(TestFacts(2, tests) for tests in broken)))
    assert [table[s].absolute["breaks-tests-alone"] > 0 for s in ("a/0", "b/1", "c/2")] == [False, True, False]


def test_what_ships_scores_as_if_no_near_test_had_been_heard_of() -> None:
    """The weights of the near tests are fitted and not shipped: where none was run, they would add nothing."""
    base = Base(STATEMENT, probed(("", "ValueError"), ("7", "")))
    told = evidence(
        base, ("a", "b", found("1", probes=probed(("42", "")))), ("b", "c", found("2")), ("b", "d", found("3"))
    )
    shipped = read_weights(SHIPPED)
    whole = replace(
        shipped,
        weights={**shipped.weights, "breaks-tests": -0.1683, "breaks-tests-alone": -0.0356},
        scales={**shipped.scales, "breaks-tests": 0.216517, "breaks-tests-alone": 0.187589},
    )
    assert shipped.weights.keys() == whole.weights.keys() & {*features.NAMES, *CIRCUMSTANCES}
    for row, in_a_run in zip(rows(told), features.rows(told), strict=True):
        assert whole.score(row) == shipped.score(in_a_run) and whole.parts(row) == shipped.parts(in_a_run)


KEPT = replace(
    evidence(
        Base(STATEMENT, probed(("", "ValueError")), {"session": ("f()",)}, ("session/0",)),
        ("a", "b", found("1", probes=probed(("42", "")))),
    ),
    samples=(),
)


def test_evidence_survives_the_disk(tmp_path: Path) -> None:
    kept = NearEvidence("i", (), KEPT.base, KEPT.found, ("t",), {"k": TestFacts(1, ("t",))})
    write_found(tmp_path, kept)
    assert evidence_so_far(tmp_path, "i") == kept


def test_evidence_that_was_stored_with_facts_that_nobody_looks_for_any_more_still_reads(tmp_path: Path) -> None:
    kept = NearEvidence("i", (), KEPT.base, KEPT.found, ("t",), {"k": TestFacts(1, ("t",))})
    write_found(tmp_path, kept)
    place = tmp_path / "evidence/i.json"
    body = json.loads(place.read_text())
    for each in body["found"].values():
        each["static"] |= {"frame_files": 0.5, "handles": ["ValueError"]}
    for record in (body["base"], body["base"]["probes"]["session"][0], body["tests"]["k"]):
        record["given_up"] = 1
    place.write_text(json.dumps(body))
    assert evidence_so_far(tmp_path, "i") == kept


def test_a_damaged_file_of_evidence_is_named(tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/i.json").write_text('{"schema": 2}')
    with pytest.raises(InputError, match=r"i\.json is damaged"):
        evidence_so_far(tmp_path, "i")


# Fitting


def pool(instances: int, signal: float, seed: int = 1) -> list[Labelled]:
    """Instances of six candidates; a right one has `signal` more likeness on average, and nothing else tells."""
    rng = random.Random(seed)
    items = []
    for n in range(instances):
        right = tuple(rng.random() < 0.3 for _ in range(6))
        table = []
        for m, good in enumerate(right):
            values = dict.fromkeys(NAMES, 0.0) | {
                "likeness": rng.gauss(signal * good, 1.0),
                "unseen-names": rng.gauss(0.0, 1.0),
                "same-code": rng.gauss(0.0, 1.0),
            }
            table.append(CandidateFeatures(f"p{m}", (f"s{m}",), values, values, dict.fromkeys(CIRCUMSTANCES, 0.0)))
        items.append(Labelled(f"i{n}", tuple(table), right, right))
    return items


def fitted(items: list[Labelled], penalty: float = 1.0) -> Weights:
    return fit([r for i in items for r in i.rows], [x for i in items for x in i.right], penalty=penalty)


def test_the_fit_finds_the_weight_of_a_logistic_model() -> None:
    rng = random.Random(3)
    table, right = [], []
    for _ in range(4000):
        values = dict.fromkeys(NAMES, 0.0) | {"likeness": rng.gauss(0, 1), "unseen-names": rng.gauss(0, 1)}
        z = -1.0 + 1.5 * values["likeness"] - 0.5 * values["unseen-names"]
        table.append(CandidateFeatures("p", ("s",), values, values, dict.fromkeys(CIRCUMSTANCES, 0.0)))
        right.append(rng.random() < 1 / (1 + 2.718281828**-z))
    weights = fit(table, right, penalty=1e-6)
    assert weights.bias == pytest.approx(-1.0, abs=0.15)
    assert weights.weights["likeness"] / weights.scales["likeness"] == pytest.approx(1.5, abs=0.15)
    assert weights.weights["unseen-names"] / weights.scales["unseen-names"] == pytest.approx(-0.5, abs=0.15)


def test_a_weight_of_the_wrong_sign_is_left_out() -> None:
    items = pool(60, signal=-2.0)
    assert "likeness" not in fitted(items).weights


def test_right_and_wrong_are_both_needed() -> None:
    items = pool(3, 1.0)
    with pytest.raises(InputError, match="right and wrong"):
        fit([r for i in items for r in i.rows], [False] * 18)


def test_cross_validated_choice_beats_a_blind_one_where_there_is_a_signal_and_not_where_there_is_none() -> None:
    strong, none = pool(80, 1.5), pool(80, 0.0)
    with_signal = recovery(choices(strong, cross(strong)), draws=500)
    without = recovery(choices(none, cross(none)), draws=500)
    assert with_signal.low > 0
    assert without.low < 0.05 * without.instances


def test_weights_survive_the_disk(tmp_path: Path) -> None:
    weights = fitted(pool(30, 1.0))
    write_weights(tmp_path / "w.json", weights)
    again = read_weights(tmp_path / "w.json")
    row = pool(1, 1.0)[0].rows[0]
    assert again.score(row) == pytest.approx(weights.score(row), abs=0.01)
    with pytest.raises(InputError, match="does not exist"):
        read_weights(tmp_path / "none.json")


def test_calibration_undoes_scores_that_are_too_sure() -> None:
    rng = random.Random(5)
    pairs = []
    for _ in range(5000):
        z = rng.gauss(-1, 1.5)
        pairs.append((3 * z + 1, rng.random() < 1 / (1 + 2.718281828**-z)))
    slope, shift = platt(pairs)
    assert slope == pytest.approx(1 / 3, abs=0.05)
    told = [(1 / (1 + 2.718281828 ** -(slope * z + shift)), right) for z, right in pairs]
    assert all(abs(b.predicted - b.right) < 0.05 for b in reliability(told) if b.candidates > 200)


# Measuring


def test_recovery_is_the_share_of_what_could_be_gained() -> None:
    items = [Choice("a", 1.0, 0.25, True), Choice("b", 0.0, 0.25, True), Choice("c", 0.0, 0.0, False)]
    got = recovery(items, draws=2000)
    assert (got.selected, got.mean_at_1, got.oracle) == (1.0, 0.5, 2)
    assert got.recovery == pytest.approx((1 - 0.5) / (2 - 0.5))
    assert got.low <= got.gain <= got.high


def test_recovery_is_undefined_where_there_is_nothing_to_choose() -> None:
    assert recovery([Choice("a", 1.0, 1.0, True)], draws=10).recovery is None


def test_a_tie_counts_as_the_chance_to_draw_a_right_one() -> None:
    item = pool(1, 0.0)[0]
    item = replace(item, right=(True, False, False, False, False, False), samples=(True, *[False] * 5))
    (choice,) = choices([item], {item.instance: [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]})
    assert choice.selected == 0.5


def test_what_everybody_knows_holds_where_no_candidate_shows_it() -> None:
    weights = fitted(pool(30, 1.0))
    assert weights.weights["breaks-tests-alone"] / weights.scales["breaks-tests-alone"] == pytest.approx(-1.0)


def test_no_label_reaches_the_features(tmp_path: Path) -> None:
    samples = [Sample("i", "a", "a", patch("b")), Sample("i", "b", "b", patch("c"))]
    kept = {digest(s.patch): found(s.source) for s in samples}
    write_found(tmp_path, InstanceEvidence("i", (), Base("f() fails"), kept))
    bare = rows(evidence_of(tmp_path, "i", samples))
    for labels in ((True, False), (False, True)):
        every = zip(samples, labels, strict=True)
        told = [Graded(s.instance, s.source, s.model, s.patch, right=right) for s, right in every]
        assert rows(evidence_of(tmp_path, "i", told)) == bare
