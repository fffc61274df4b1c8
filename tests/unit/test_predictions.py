"""Reading predictions in every official format, and naming what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.swebench.predictions import read_predictions, sets_of
from tasks.errors import InputError

KNOWN = {"a__a-1", "a__a-2", "b__b-1"}


def prediction(name: str = "a__a-1", patch: Any = "diff", model: Any = "m", **more: Any) -> dict[str, Any]:
    return {"instance_id": name, "model_name_or_path": model, "model_patch": patch, **more}


def written(folder: Path, content: object, name: str = "p.jsonl") -> Path:
    file = folder / name
    if isinstance(content, list) and name.endswith("l"):
        file.write_text("".join(json.dumps(line) + "\n" for line in content))
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.txt"])
def test_lines_lists_and_objects_mean_the_same(tmp_path: Path, name: str) -> None:
    two = [prediction("a__a-1"), prediction("b__b-1", None)]
    files = [
        written(tmp_path, "".join(json.dumps(line) + "\n" for line in two), f"lines-{name}"),
        written(tmp_path, two, "list.json"),
        written(tmp_path, {each["instance_id"]: each for each in two}, "object.json"),
    ]
    for file in files:
        if name == "p.json" and file.name.startswith("lines-"):
            continue
        found = read_predictions(file, KNOWN)
        assert [(p.instance_id, p.patch, p.model, p.rank) for p in found] == [
            ("a__a-1", "diff", "m", 1),
            ("b__b-1", "", "m", 1),
        ]


def test_a_single_prediction_in_a_json_file(tmp_path: Path) -> None:
    assert len(read_predictions(written(tmp_path, prediction(), "one.json"), KNOWN)) == 1


def test_several_predictions_of_a_model_for_an_instance_are_its_ranks(tmp_path: Path) -> None:
    lines = [prediction(patch="1"), prediction("a__a-2"), prediction(patch="2"), prediction(patch="3", model="other")]
    sets = sets_of(read_predictions(written(tmp_path, lines), KNOWN))
    assert [(each.name, {n: p.patch for n, p in each.predictions.items()}) for each in sets] == [
        ("m", {"a__a-1": "1", "a__a-2": "diff"}),
        ("m.rank-2", {"a__a-1": "2"}),
        ("other", {"a__a-1": "3"}),
    ]


def test_a_rank_may_be_given(tmp_path: Path) -> None:
    found = read_predictions(written(tmp_path, [prediction(rank=3), prediction(rank=1)]), KNOWN)
    assert [p.rank for p in found] == [3, 1]


def test_sets_of_several_files_have_names_of_their_own_that_are_safe(tmp_path: Path) -> None:
    files = [written(tmp_path, [prediction(model="org/../m x")], name) for name in ("a.jsonl", "b.jsonl")]
    (tmp_path / "deep").mkdir()
    files.append(written(tmp_path / "deep", [prediction(model="org/../m x")], "a.jsonl"))
    files.append(written(tmp_path, [prediction(model="..")], "c.jsonl"))
    names = [each.name for each in sets_of([p for file in files for p in read_predictions(file, KNOWN)])]
    assert names == ["org__..__m_x.a", "org__..__m_x.b", "org__..__m_x.a-2", "unnamed"]


def test_a_model_without_a_name_is_called_after_its_file(tmp_path: Path) -> None:
    line = {"instance_id": "a__a-1", "model_patch": ""}
    assert read_predictions(written(tmp_path, [line]), KNOWN)[0].model == "p"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"instance_id": "a__a-1"\n', r"p\.jsonl, line 1: this is not JSON"),
        (json.dumps(prediction()) + "\n\n[1]\n", r"p\.jsonl, line 3: a prediction must be an object"),
        ([prediction(), {"model_patch": "x"}], r"line 2: the field instance_id is missing"),
        (
            [prediction("a__a-3")],
            r"line 1: the field instance_id is 'a__a-3', which the data set does not have; the nearest",
        ),
        ([{"instance_id": "a__a-1"}], r"line 1: the field model_patch is missing"),
        ([prediction(patch=3)], r"line 1: the field model_patch must be text, not a whole number"),
        ([prediction(model=["m"])], r"line 1: the field model_name_or_path must be text, not a list"),
        ([prediction(rank=0)], r"line 1: the field rank must be a whole number from 1"),
        ([prediction(), prediction(), prediction(rank=2)], r"line 3: a__a-1 has a prediction of m with rank 2 already"),
        ("", "holds no predictions"),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_field(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_predictions(written(tmp_path, content), KNOWN)


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the predictions"):
        read_predictions(tmp_path / "none.jsonl", KNOWN)
    (tmp_path / "bad.jsonl").write_bytes(json.dumps(prediction()).encode() + b"\n\xff\n")
    with pytest.raises(InputError, match=r"bad\.jsonl, line 2: this is no UTF-8 text"):
        read_predictions(tmp_path / "bad.jsonl", KNOWN)
