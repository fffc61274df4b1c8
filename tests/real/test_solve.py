"""A whole solve against a real HTTP model server, in real sandboxes."""

from __future__ import annotations

import base64
import gc
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent import resume, solve
from agent.assemble import Solution
from harness import trace
from harness.money.ledger import Prices, is_priced
from harness.records import Budget
from harness.sandbox.base import Provider
from tasks.errors import EndpointFailed, InputError, SetupFailed
from tasks.task import Repository, Task
from tests.support.calculator import PLAN, RIGHT, SOLVING, SUBMIT, WITNESS, WRONG, call, settings, task
from tests.support.model_server import Answer, Request, error, serving, too_many
from tests.support.repositories import make_repository
from tests.support.runs import events

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]


def kinds(solution: Solution, kind: type[trace.Event]) -> list[trace.Event]:
    return [e for e in events(solution.directory) if isinstance(e, kind)]


def test_solves_with_a_model_in_either_sandbox(provider: Provider, repository: Path, tmp_path: Path) -> None:
    with serving(SOLVING) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2, sandbox=provider.name))
    assert done.exit_code == 0
    assert done.patch is not None
    assert "-    for value in values[1:]:\n+    for value in values:" in done.patch
    assert "tests/test_w.py" not in done.patch, "the witness test is kept apart"
    (candidate,) = done.report["candidates"]
    assert candidate["attempts"] == [0, 1]
    assert candidate["evidence"]["clean"] and candidate["evidence"]["regression"]["run"] == 2
    assert list(candidate["evidence"]["witness"].values()) == ["passed"], "the same test from both attempts counts once"
    assert [row["status"] for row in done.report["attempts"]] == ["submitted", "submitted"]
    assert (done.directory / "selected.patch").read_text() == done.patch
    environment = done.report["environment"]
    assert environment["baseline"] == {"passed": 2, "failed": 0, "error": 0, "skipped": 0, "unloadable": 0}
    assert environment["python"].startswith("3.") and environment["test_command"] == "python -m pytest -q"
    assert json.loads((done.directory / "predictions.jsonl").read_text())["model_patch"] == done.patch


def test_a_base_of_which_no_test_passes_stops_before_a_model_is_called_unless_the_run_is_to_go_on(
    tmp_path: Path,
) -> None:
    files = {"calc.py": "", "tests/test_calc.py": "def test_it():\n    assert False, 'no database'\n"}
    wrong = task(make_repository(tmp_path / "wrong", files))
    with serving([PLAN, SUBMIT]) as server:
        chosen = settings(server.url, tmp_path / "runs")
        with pytest.raises(
            SetupFailed, match=r"(?s)none of them passes: Python 3\..* 1 fail.*no database.*--setup.*--yes"
        ):
            solve(wrong, chosen)
        assert server.requests == []
        assert solve(wrong, replace(chosen, yes=True)).exit_code == 1
        bare = task(make_repository(tmp_path / "bare", {"calc.py": ""}))
        with pytest.raises(SetupFailed, match="no tests guard"):
            solve(bare, replace(chosen, strict=True))


def test_the_users_tree_is_not_touched(repository: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in repository.rglob("*") if p.is_file()}
    with serving(SOLVING) as server:
        solve(task(repository), settings(server.url, tmp_path / "runs"))
    assert {p: p.read_bytes() for p in repository.rglob("*") if p.is_file()} == before


def test_every_answer_is_charged_once_and_usage_adds_up(repository: Path, tmp_path: Path) -> None:
    with serving(SOLVING) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=3))
        assert len(server.requests) == len(kinds(done, trace.Replied)) == 3 * len(SOLVING)
    cost = done.report["cost"]
    assert cost["usd"] is None and cost["exact"] is False, "an unknown price is never 0"
    assert set(cost["by_purpose"]) == {"plan", "act"}
    assert set(cost["by_attempt"]) == {"0", "1", "2"}


def test_a_wrong_patch_that_breaks_a_test_is_not_selected(repository: Path, tmp_path: Path) -> None:
    def script(request: Request) -> Answer:
        # The temperature differs by attempt: the first attempt gets the wrong edit, the second the right one.
        edit = WRONG if request.body["temperature"] == 0.6 else RIGHT
        return [PLAN, edit, SUBMIT][min(request.turn, 2)]

    with serving(script) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2))
    assert len(done.report["candidates"]) == 2
    assert done.report["selected"]["attempt"] == 1
    assert done.report["selected"]["method"] == "regression"
    assert "test_total_of_nothing" in done.report["ranking"][1]["why"]


def test_nothing_acceptable_selects_nothing_and_names_the_runner_up(repository: Path, tmp_path: Path) -> None:
    with serving([PLAN, WRONG, SUBMIT]) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
    assert done.exit_code == 1 and done.patch is None
    assert done.selection is not None and "runner-up is c1" in done.selection.rationale
    assert not (done.directory / "selected.patch").exists()


def test_the_judge_decides_between_candidates_that_tests_cannot_tell_apart(repository: Path, tmp_path: Path) -> None:
    other = call("edit", path="calc.py", old="    for value in values[1:]:\n", new="    for value in list(values):\n")

    def script(request: Request) -> Answer:
        body = request.body
        if "Two patches, A and B" in body["messages"][0]["content"]:
            first = body["messages"][0]["content"].partition('<patch name="B">')[0]
            winner = "A" if "list(values)" in first else "B"
            return Answer(text=json.dumps({"reason": "copies first", "winner": winner}))
        return [PLAN, other if body["temperature"] == 0.6 else RIGHT, SUBMIT][min(request.turn, 2)]

    with serving(script) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2))
    judged = kinds(done, trace.Judged)
    assert len(judged) == 2, "both orders"
    assert done.report["selected"]["method"] == "judge"
    assert done.patch is not None and "list(values)" in done.patch
    assert done.report["cost"]["by_purpose"]["judge"]["calls"] == 3, "a test of its own is asked for once"


def test_no_judge_is_asked_when_told_so(repository: Path, tmp_path: Path) -> None:
    other = call("edit", path="calc.py", old="    for value in values[1:]:\n", new="    for value in list(values):\n")

    def script(request: Request) -> Answer:
        return [PLAN, other if request.body["temperature"] == 0.6 else RIGHT, SUBMIT][min(request.turn, 2)]

    with serving(script) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2, judge_model="none"))
    assert not kinds(done, trace.Judged)
    assert done.report["selected"]["method"] == "probability"


def test_a_malformed_reply_is_answered_charged_and_ends_the_attempt_at_the_limit(
    repository: Path, tmp_path: Path
) -> None:
    bad = Answer(tool_calls=[{"name": "edit", "arguments": {"path": "calc.py"}}])
    with serving([PLAN, Answer(text="I would edit calc.py."), bad, call("nonsense")]) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
        last = server.requests[-1].body["messages"][-1]["content"]
    (row,) = done.report["attempts"]
    assert row["status"] == "malformed" and row["turns"] == 3
    assert "edit needs old, new" in last
    assert done.report["cost"]["by_purpose"]["act"]["calls"] == 3


def test_the_text_protocol_serves_models_without_tool_calls(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def block(name: str, **arguments: object) -> Answer:
        return Answer(text="So:\n```tool\n" + json.dumps({"name": name, "arguments": arguments}) + "\n```")

    script = [PLAN, block("edit", path="calc.py", old="values[1:]", new="values"), block("submit")]
    with serving(script) as server:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "troop.toml").write_text(
            f'[models.plain]\nbase_url = "{server.url}"\nname = "scripted"\ntools = false\n'
        )
        done = solve(task(repository), settings(server.url, tmp_path / "runs", models=("plain",)))
        assert "tools" not in server.requests[-1].body
    assert done.exit_code == 0 and done.report["attempts"][0]["turns"] == 3, "one is asked back"


def test_the_same_call_with_the_same_result_three_times_ends_the_attempt(repository: Path, tmp_path: Path) -> None:
    with serving([PLAN, call("read", path="calc.py")]) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
    (row,) = done.report["attempts"]
    assert (row["status"], row["turns"]) == ("stuck", 3)


def test_the_same_tests_with_the_same_outcomes_three_times_end_the_attempt(repository: Path, tmp_path: Path) -> None:
    with serving([PLAN, call("test")]) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
    (row,) = done.report["attempts"]
    assert (row["status"], row["turns"]) == ("stuck", 3), "though each run takes another time"


def test_edits_that_swing_back_and_forth_end_the_attempt(repository: Path, tmp_path: Path) -> None:
    back = call("edit", path="calc.py", old="in values:", new="in values[1:]:")

    def script(request: Request) -> Answer:
        turn = request.turn
        return PLAN if turn == 0 else [RIGHT, back][(turn - 1) % 2]

    with serving(script) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", turns=20))
    (row,) = done.report["attempts"]
    assert row["status"] == "stuck" and row["turns"] < 10


def test_the_turn_limit_ends_an_attempt_with_the_patch_it_has(repository: Path, tmp_path: Path) -> None:
    def script(request: Request) -> Answer:
        turn = request.turn
        return [PLAN, RIGHT][turn] if turn < 2 else call("run", command=f"echo {turn}")

    with serving(script) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", turns=4))
    assert done.report["attempts"][0]["status"] == "turn-limit"
    assert done.exit_code == 0


def test_rate_limits_and_server_errors_are_retried_and_are_no_samples(repository: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def script(request: Request) -> Answer:
        seen.append(request.number)
        if request.number == 1:
            return too_many(0.05)
        if request.number == 3:
            return error(503, "overloaded")
        return SOLVING[request.turn]

    with serving(script) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
    assert done.exit_code == 0
    assert done.report["infrastructure"]["retries"] == 2
    assert len(seen) == len(SOLVING) + 2


def test_a_server_that_is_not_there_is_the_environments_failure(repository: Path, tmp_path: Path) -> None:
    with serving(SOLVING) as server:
        gone = server.url
    # A refused key is final at once, where a refused connection is borne with for a while.
    with serving(lambda request: error(401, "Incorrect API key")) as server:
        assert server.url != gone
        with pytest.raises(EndpointFailed):
            solve(task(repository), settings(server.url, tmp_path / "runs", attempts=4))
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "report.json").read_text())["status"] == "failed"


def test_a_money_cap_with_an_unknown_price_is_refused_before_anything_starts(repository: Path, tmp_path: Path) -> None:
    with serving(SOLVING) as server:
        with pytest.raises(InputError, match="price"):
            solve(task(repository), settings(server.url, tmp_path / "runs", budget=Budget(attempts=1, usd=1.0)))
        assert not server.requests
    assert not (tmp_path / "runs").exists()


def test_a_spent_budget_ends_attempts_but_keeps_their_patches(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = {"prompt_tokens": 4000, "completion_tokens": 100, "total_tokens": 4100}

    def script(request: Request) -> Answer:
        turn = request.turn
        answer = [PLAN, RIGHT][turn] if turn < 2 else call("run", command=f"echo {turn}")
        return Answer(text=answer.text, tool_calls=answer.tool_calls, usage=usage)

    with serving(script) as server:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "troop.toml").write_text(
            f'[models.m]\nbase_url = "{server.url}"\nname = "scripted"\n'
            "usd_per_mtok_input = 10.0\nusd_per_mtok_output = 10.0\nsampling = {max_tokens = 100}\n"
        )
        # Each call costs 0.041 USD, so the eighth cannot fit under the cap; what is reserved for one may be more.
        budget = Budget(attempts=1, turns=50, usd=0.3)
        done = solve(task(repository), settings(server.url, tmp_path / "runs", models=("m",), budget=budget))
        asked = len(server.requests)
    assert done.report["attempts"][0]["status"] == "budget"
    (ended,) = kinds(done, trace.AttemptEnded)
    assert isinstance(ended, trace.AttemptEnded) and "udget" in ended.detail and "0.3" in ended.detail
    assert 3 <= asked <= 7 and done.report["cost"]["usd"] == pytest.approx(0.041 * asked)
    assert done.exit_code == 0, "its patch was made before the budget ended"


def test_a_token_cap_that_ends_the_run_before_any_patch_is_exit_3(repository: Path, tmp_path: Path) -> None:
    with serving([PLAN, RIGHT, SUBMIT]) as server:
        budget = Budget(attempts=3, turns=50, tokens=50)
        done = solve(task(repository), settings(server.url, tmp_path / "runs", budget=budget))
        assert not server.requests, "the first call may use more than the cap"
    assert done.exit_code == 3 and done.report["status"] == "budget"


def test_a_run_that_its_time_ends_is_exit_3_also_after_a_resume(repository: Path, tmp_path: Path) -> None:
    def slow(request: Request) -> Answer:
        answer = PLAN if request.turn == 0 else call("run", command=f"echo {request.turn}")
        return replace(answer, delay=0.5)

    with serving(slow) as server:
        solve(
            task(repository), settings(server.url, tmp_path / "first", turns=1)
        )  # the environment is there after this
        budget = Budget(attempts=3, turns=500, seconds=4.0)
        began = time.monotonic()
        done = solve(task(repository), settings(server.url, tmp_path / "runs", budget=budget, concurrency=1))
        assert time.monotonic() - began < 8
        assert done.exit_code == 3
        assert [row["status"] for row in done.report["attempts"]] == ["budget"], (
            "no attempt starts after the time is up"
        )
        # As if the process had been killed before it came to a selection.
        file = done.directory / "trace.jsonl"
        lines = file.read_text().splitlines(keepends=True)
        kinds_left = ("run-ended", "selected")
        file.write_text("".join(line for line in lines if json.loads(line)["kind"] not in kinds_left))
        assert resume(str(done.directory)).exit_code == 3


def test_repair_keeps_the_time_of_the_run(repository: Path, tmp_path: Path) -> None:
    given = task(repository, failing_test=True)
    budget = Budget(attempts=2, turns=50, seconds=0.01)
    done = solve(given, settings("", tmp_path / "runs", models=("repair",), budget=budget))
    assert done.exit_code == 3 and done.report["attempts"] == []


def test_what_looks_like_a_token_comes_out_of_a_run_as_it_was(repository: Path, tmp_path: Path) -> None:
    token = "ghp_" + "a1B2c3D4e5" * 4
    fixture = call("create", path="tokens.py", content=f"TOKEN = '{token}'\n")
    with serving([PLAN, RIGHT, fixture, SUBMIT]) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
    assert done.patch is not None and f"+TOKEN = '{token}'" in done.patch
    (ended,) = kinds(done, trace.AttemptEnded)
    prediction = json.loads((done.directory / "predictions.jsonl").read_text())["model_patch"]
    on_disk = (done.directory / "attempts" / "00" / "patch.diff").read_text()
    assert isinstance(ended, trace.AttemptEnded) and ended.patch == done.patch == prediction == on_disk


def test_a_secret_of_the_environment_is_in_no_file_of_a_run_and_its_patch_is_not_selected(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "correct-horse-battery"
    monkeypatch.setenv("SERVICE_PASSWORD", secret)
    given = replace(task(repository), statement=f"It says {secret}.")
    with serving([PLAN, RIGHT, call("create", path="more.py", content=f"P = '{secret}'\n"), SUBMIT]) as server:
        done = solve(given, settings(server.url, tmp_path / "runs"))
    assert done.exit_code == 1 and done.patch is None
    assert "masked" in done.report["attempts"][0]["flags"]
    written = [p for p in done.directory.rglob("*") if p.is_file()]
    assert len(written) > 5
    encoded = base64.b64encode(f"P = '{secret}'\n".encode())
    assert not [p.name for p in written if secret.encode() in p.read_bytes() or encoded in p.read_bytes()]


def test_a_url_with_a_password_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    given = Task("t", Repository("url", "https://me:a1b2c3d4e5f6g7h8@git.example.org/x"), "text")
    with pytest.raises(InputError, match="holds a credential"):
        solve(given, settings("http://127.0.0.1:1", tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_attempts_rotate_over_models(repository: Path, tmp_path: Path) -> None:
    with serving(SOLVING) as one, serving(SOLVING) as other:
        models = (f"{one.url}#scripted", f"{other.url}#scripted")
        done = solve(task(repository), settings(one.url, tmp_path / "runs", models=models, attempts=4))
        assert len(one.requests) == len(other.requests) == 2 * len(SOLVING)
    assert [row["model"] for row in done.report["attempts"]] == [models[0], models[1]] * 2


def test_samples_differ_by_temperature_and_seed(repository: Path, tmp_path: Path) -> None:
    with serving(SOLVING) as server:
        solve(task(repository), settings(server.url, tmp_path / "runs", attempts=4))
        sampled = {(r.body["temperature"], r.body["seed"]) for r in server.requests if r.body.get("tools")}
    assert len(sampled) == 4


def test_attempts_see_nothing_of_each_other(repository: Path, tmp_path: Path) -> None:
    plant = call("run", command="echo secret-of-one > planted.txt; ls; env; ls /tmp /testbed")
    script = [
        PLAN,
        plant,
        call("run", command="cat /testbed/planted.txt | wc -l; find / -name planted.txt 2>/dev/null | wc -l"),
    ]
    with serving([*script, SUBMIT]) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=3))
    results = [e.result for e in kinds(done, trace.ToolRan) if isinstance(e, trace.ToolRan) and e.turn == 2]
    assert len(results) == 3
    assert all(result.splitlines()[:2] == ["1", "1"] for result in results), "each finds its own, and only that"


def test_a_second_run_of_a_task_sets_nothing_up_again(repository: Path, tmp_path: Path) -> None:
    with serving([PLAN, RIGHT, SUBMIT]) as server:
        first = solve(task(repository), settings(server.url, tmp_path / "runs"))
        again = solve(task(repository), settings(server.url, tmp_path / "runs"))
    prepared = [e for s in (first, again) for e in events(s.directory) if isinstance(e, trace.Prepared)]
    assert prepared[0].environment == prepared[1].environment
    assert prepared[1].seconds < 1.0


def test_what_takes_long_once_is_done_before_the_first_turn(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    kept: list[int] = []

    def priced(prices: Prices) -> bool:
        order.append(prices.model)
        return is_priced(prices)

    def hear(event: trace.Event) -> None:
        order.append(event.kind)
        kept.extend([gc.get_freeze_count()] if isinstance(event, trace.Planned) else [])

    monkeypatch.setattr("agent.assemble.is_priced", priced)
    with serving([PLAN, RIGHT, SUBMIT]) as server:
        solve(task(repository), settings(server.url, tmp_path / "runs"), listener=hear)
    assert order.index("scripted") < order.index("prepared") < order.index("asked"), "the table of prices is looked at"
    assert kept[0] > 50_000, "collections of garbage look through nothing that was loaded"


def test_the_witness_that_passes_on_the_base_is_no_evidence(repository: Path, tmp_path: Path) -> None:
    useless = WITNESS.replace("== 3", "== 2")
    script = [PLAN, call("witness", path="tests/test_w.py", content=useless), RIGHT, SUBMIT]
    with serving(script) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
    assert done.report["candidates"][0]["evidence"]["witness"] == {}
