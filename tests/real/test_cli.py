"""The command line as a person or a script meets it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.calculator import PLAN, RIGHT, SOLVING, SUBMIT, WRONG
from tests.support.command_line import TROOP, troop
from tests.support.model_server import serving
from tests.support.programs import make_checkout
from tests.support.repositories import git


def test_help_answers_at_once() -> None:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        assert troop("--help").returncode == 0
        times.append(time.perf_counter() - began)
    assert min(times) < 0.3


def test_the_version_is_told_with_and_without_the_package_installed(tmp_path: Path) -> None:
    for flags in ([], ["-S"]):  # -S: no site-packages, so no metadata of the package
        shown = subprocess.run(
            [TROOP[0], *flags, *TROOP[1:], "--version"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
            check=True,
        )
        assert re.fullmatch(r"troop \d+\.\d+\.\d+\n", shown.stdout) and not shown.stderr


def test_help_is_shown_for_the_word_and_for_nothing_at_all() -> None:
    overall, bare, of_solve = troop("help"), troop(), troop("help", "solve")
    assert overall.returncode == of_solve.returncode == 0 and bare.returncode == 2
    assert overall.stdout == troop("--help").stdout == troop("help", "help").stdout == bare.stderr
    assert of_solve.stdout == troop("solve", "--help").stdout


@pytest.mark.parametrize(
    "value", ["~nobody-of-that-name-7", "/" + "s3cr3t" * 60, "/root/s3cr3t\n" * 3, "/s3cr3t-and-no-file"]
)
def test_a_token_that_looks_like_a_path_ends_nothing_and_stands_in_no_message(
    value: str, repository: Path, tmp_path: Path
) -> None:
    named = [value, "--issue-text", "x"], [repository, "--issue-text", "x", "--model", value]
    for arguments in (*named, [repository, "--issue-text", "x", "--base", value, "--model", "repair"]):
        done = troop("solve", *arguments, "--json", cwd=tmp_path, SOME_TOKEN=value)
        assert done.returncode == 2
        for said in (done.stdout, done.stderr):
            assert said and value not in said and "s3cr3t" not in said and "Traceback" not in said


def test_a_key_with_characters_that_no_key_has_is_named_by_its_variable(repository: Path, tmp_path: Path) -> None:
    arguments = ["solve", repository, "--issue-text", "x", "--model", "deepseek/deepseek-chat"]
    done = troop(*arguments, cwd=tmp_path, DEEPSEEK_API_KEY="k3y-with-é\nand-a-line")
    assert done.returncode == 4 and "DEEPSEEK_API_KEY holds characters" in done.stderr and "k3y" not in done.stderr


@pytest.mark.parametrize(
    "command",
    ["solve", "eval", "report", "runs", "show", "diff", "view", "replay", "resume", "init", "doctor", "completion"],
)
def test_every_command_has_help_with_examples(command: str) -> None:
    shown, whole = troop(command, "--help"), troop(command, "--help-all")
    assert shown.returncode == 0 and "examples:" in shown.stdout
    assert whole.returncode == 0 and "examples:" in whole.stdout and "--json" in whole.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sovle"], "there is no command 'sovle'; did you mean solve?"),
        (["help", "sovle"], "did you mean solve?"),
        (["--vresion"], "did you mean --version?"),
        (["--json", "solve", "."], "options stand after the command: troop solve --json"),
        (["resume", "--quite"], "did you mean --quiet?"),
        (["solve", ".", "--modle", "x"], "did you mean --model?"),
        (["solve", ".", "-n", "0"], "0 is not 1 or more"),
        (["solve", ".", "--max-usd", "nine"], "invalid number value: 'nine'"),
        (["solve", "nothing-here"], "'nothing-here' is no source of work"),
        (["solve", "missing.toml"], "missing.toml"),
        (["report", "/nonexistent"], "cannot read the trace /nonexistent/trace.jsonl"),
        (["resume", "/nonexistent"], "/nonexistent is not a run directory"),
        (["replay", "/nonexistent"], "cannot read the trace /nonexistent"),
        (["eval", "quixbugs"], "quixbugs needs --source DIR"),
        (
            ["solve", ".", "--issue-text", "y", "--include-uncommitted", "--apply"],
            "--apply needs a commit to branch from",
        ),
        (["solve", ".", "--image", "x", "--sandbox", "bubblewrap", "--issue-text", "y"], "bubblewrap has no images"),
    ],
)
def test_a_mistake_is_one_clear_sentence_and_starts_nothing(arguments: list[str], said: str, repository: Path) -> None:
    done = troop(*arguments, cwd=repository)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (repository / "runs").exists()


def test_instances_are_named_barely_and_by_commas_and_an_unknown_one_starts_nothing(tmp_path: Path) -> None:
    make_checkout(tmp_path / "checkout")
    command = ("eval", "quixbugs", "--source", tmp_path / "checkout", "--model", "repair", "--dry-run", "--json")
    done = troop(*command, "--instances", "largest,quixbugs-pairs", cwd=tmp_path)
    named = [each["id"] for each in json.loads(done.stdout)["instances"]]
    assert done.returncode == 0 and named == ["quixbugs-largest", "quixbugs-pairs"]
    done = troop(*command, "--instances", "largest,pears", "--out", "elsewhere", cwd=tmp_path)
    assert done.returncode == 2 and "no instance is called 'pears'; the nearest are pairs" in done.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_a_lasting_choice_holds_where_the_option_is_not_given(tmp_path: Path) -> None:
    make_checkout(tmp_path / "checkout")
    (tmp_path / "troop.toml").write_text('[defaults]\nattempts = 3\nout = "elsewhere"\n')
    command = ("eval", "quixbugs", "--source", "checkout", "--model", "repair", "--instances", "pairs", "--dry-run")
    left = [
        json.loads(troop(*command, "--json", *more, cwd=tmp_path, **env).stdout)["attempts_left"]
        for more, env in (((), {}), ((), {"TROOP_ATTEMPTS": "5"}), (("-n", 7), {"TROOP_ATTEMPTS": "5"}))
    ]
    assert left == [3, 5, 7] and (tmp_path / "elsewhere").is_dir() and not (tmp_path / "runs").exists()


def test_no_model_and_no_failing_test_says_the_three_ways(repository: Path, tmp_path: Path) -> None:
    done = troop("solve", repository, "--issue-text", "total is wrong", cwd=tmp_path)
    assert done.returncode == 4
    for way in ("OPENAI_API_KEY", "http://127.0.0.1:8000/v1#", "default_model", "--failing-test"):
        assert way in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_missing_key_is_named_before_anything_starts(repository: Path, tmp_path: Path) -> None:
    done = troop("solve", repository, "--issue-text", "x", "--model", "deepseek/deepseek-chat", cwd=tmp_path)
    assert done.returncode == 4 and "DEEPSEEK_API_KEY" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_doctor_tells_what_works_here() -> None:
    done = troop("doctor", "--json")
    found = json.loads(done.stdout)["findings"]
    assert set(found) == {"docker", "bubblewrap", "tools", "settings", "models", "cache"}
    assert all(f["ok"] or f["fix"] for group in found.values() for f in group), (
        "what is missing comes with what to type"
    )


def test_doctor_says_how_to_get_what_is_missing() -> None:
    found = json.loads(troop("doctor", "--json", PATH="/nonexistent").stdout)["findings"]
    missing = {f["name"]: f["fix"] for group in found.values() for f in group if not f["ok"]}
    assert missing["git"] == "apt-get install git" and all(missing.values())


@pytest.mark.network
@pytest.mark.bubblewrap
class TestWithASandbox:
    def solve(self, repository: Path, url: str, *more: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        return troop(
            *("solve", repository, "--issue-text", "total leaves out the first value", "--model", f"{url}#scripted"),
            *("-n", 1, "--sandbox", "bubblewrap", *more),
            cwd=cwd,
        )

    def test_json_is_one_document_on_stdout_and_all_else_on_stderr(self, repository: Path, tmp_path: Path) -> None:
        with serving(SOLVING) as server:
            done = self.solve(repository, server.url, "--json", cwd=tmp_path)
        report = json.loads(done.stdout)
        assert done.returncode == 0 and report["selected"]["candidate"] == "c1"
        assert "all of it: troop report" in done.stderr

    def test_a_run_within_the_repository_is_no_change_of_it(self, repository: Path) -> None:
        (repository / "notes.txt").write_text("mine")
        with serving(SOLVING) as server:
            first = json.loads(self.solve(repository, server.url, "--json", cwd=repository).stdout)
            (Path(first["directory"]) / ".gitignore").unlink()  # as an earlier release made it
            done = self.solve(repository, server.url, "--include-uncommitted", "--json", cwd=repository)
        second = json.loads(done.stdout)
        assert "uncommitted changes are taken in: 1 untracked file" in done.stderr
        shutil.rmtree(first["directory"])
        assert git(repository, "status", "--porcelain") == "?? notes.txt"
        assert (Path(second["directory"]) / ".gitignore").read_text().endswith("\n*\n")

    def test_apply_makes_a_branch_and_leaves_the_working_tree(self, repository: Path, tmp_path: Path) -> None:
        (repository / "notes.txt").write_text("mine")
        head, status = git(repository, "rev-parse", "HEAD"), git(repository, "status", "--porcelain")
        with serving(SOLVING) as server:
            done = self.solve(repository, server.url, "--apply", "--json", cwd=tmp_path)
        branch = json.loads(done.stdout)["branch"]
        assert "for value in values:" in git(repository, "show", f"{branch}:calc.py")
        assert git(repository, "rev-parse", "HEAD") == head
        assert git(repository, "status", "--porcelain") == status
        assert "left out" in done.stderr, "uncommitted changes are left out, and that is said"

    def test_uncommitted_changes_can_be_included(self, repository: Path, tmp_path: Path) -> None:
        source = (repository / "calc.py").read_text()
        (repository / "calc.py").write_text(source.replace("result = 0\n", "result = 0  # mine\n"))
        with serving(SOLVING) as server:
            done = self.solve(repository, server.url, "--include-uncommitted", "--json", cwd=tmp_path)
        report = json.loads(done.stdout)
        patch = (Path(report["directory"]) / "selected.patch").read_text()
        assert "# mine" in patch, "as context of the change"
        assert report["base_commit"] != git(repository, "rev-parse", "HEAD")

    def test_applying_again_makes_no_second_branch_and_says_so(self, repository: Path, tmp_path: Path) -> None:
        with serving(SOLVING) as server:
            done = self.solve(repository, server.url, "--apply", "--json", cwd=tmp_path)
        first = json.loads(done.stdout)
        assert (first["branch"], first["branch_is_new"]) == ("troop/total-leaves-out-the-first-value", True)
        subject, body, trailer = git(repository, "show", "-s", "--format=%B", first["branch"]).split("\n\n")
        assert subject == "total leaves out the first value"
        assert body.startswith("Selected by Troop (") and "passed before" in body
        assert trailer == f"Troop-Run: {first['run']}"
        branches = git(repository, "branch", "--list")
        again = troop("resume", first["directory"], "--apply", "--json")
        assert again.returncode == 0, again.stderr
        document = json.loads(again.stdout)
        assert (document["branch"], document["branch_is_new"]) == (first["branch"], False)
        assert f"branch: {first['branch']} (it was there already)" in again.stderr
        assert git(repository, "branch", "--list") == branches

    def test_a_patch_that_cannot_be_applied_is_told_of_after_the_result(self, repository: Path, tmp_path: Path) -> None:
        with serving(SOLVING) as server:
            report = json.loads(self.solve(repository, server.url, "--json", cwd=tmp_path).stdout)
        shutil.rmtree(repository / ".git")
        git(repository, "init", "-q")
        done = troop("resume", report["directory"], "--apply", "--json")
        assert done.returncode == 2
        document = json.loads(done.stdout)
        assert document["selected"]["candidate"] == "c1" and document["branch"] is None
        assert "cannot apply to" in document["apply_error"]
        assert "all of it: troop report" in done.stderr and "cannot apply to" in done.stderr.splitlines()[-1]

    def test_a_trace_without_a_whole_line_and_a_file_system_that_refuses_are_told_in_a_sentence(
        self, repository: Path, tmp_path: Path
    ) -> None:
        with serving([PLAN, RIGHT, SUBMIT]) as server:
            report = json.loads(self.solve(repository, server.url, "--json", cwd=tmp_path).stdout)
        refused = troop("report", report["directory"], "--html", "/proc/report.html")
        assert refused.returncode in (2, 4) and "Traceback" not in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        (Path(report["directory"]) / "trace.jsonl").write_text('{"kind"')
        empty = troop("report", report["directory"])
        assert empty.returncode == 2 and "trace.jsonl is empty" in empty.stderr

    def test_eval_says_how_to_go_on_and_mixes_no_settings(self, tmp_path: Path) -> None:
        programs = tmp_path / "quixbugs"
        for folder in ("python_programs", "correct_python_programs", "python_testcases", "json_testcases"):
            (programs / folder).mkdir(parents=True)
        for folder, item in (("python_programs", "0"), ("correct_python_programs", "-1")):
            source = f"def largest(numbers):\n    numbers.sort()\n    return numbers[{item}]\n"
            (programs / folder / "largest.py").write_text(source)
        cases = [[[[3, 1, 2]], 3], [[[1]], 1], [[[2, 5]], 5], [[[7, 8, 9]], 9]]
        (programs / "json_testcases" / "largest.json").write_text("\n".join(json.dumps(c) for c in cases))

        def command(url: str) -> list[str]:
            shared = [
                "--sandbox",
                "bubblewrap",
                "--no-grade",
                "--out",
                str(tmp_path / "runs"),
                "--model",
                f"{url}#scripted",
            ]
            return ["eval", "quixbugs", "--source", str(programs), "-n", "1", *shared]

        with serving([replace(PLAN, delay=60.0)]) as server:
            process = subprocess.Popen(
                [*TROOP, *command(server.url)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
            )
            end = time.monotonic() + 60
            while not server.requests and time.monotonic() < end:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, complained = process.communicate(timeout=30)
            assert process.returncode == 130, complained
            assert "the same command goes on where it stopped" in complained and "Traceback" not in complained
            other = troop(*command(server.url), "--seed", "7")
            assert other.returncode == 2 and "--seed 0 there, 7 now" in other.stderr

    def test_nothing_acceptable_is_exit_1(self, repository: Path, tmp_path: Path) -> None:
        with serving([PLAN, WRONG, SUBMIT]) as server:
            done = self.solve(repository, server.url, cwd=tmp_path)
        assert done.returncode == 1 and "Nothing was selected" in done.stdout

    def test_a_failing_setup_names_the_command_and_asks_no_model(self, repository: Path, tmp_path: Path) -> None:
        with serving(SOLVING) as server:
            setup = "echo the reason; exit 3"
            done = self.solve(repository, server.url, "--setup", setup, cwd=tmp_path)
            assert not server.requests
        assert done.returncode == 4
        assert setup in done.stderr and "the reason" in done.stderr

    def test_a_test_command_that_cannot_run_names_itself_and_asks_no_model(
        self, repository: Path, tmp_path: Path
    ) -> None:
        with serving(SOLVING) as server:
            done = self.solve(repository, server.url, "--test-command", "python -m pytest --no-such-flag", cwd=tmp_path)
            assert not server.requests
        assert done.returncode == 4 and "--no-such-flag" in done.stderr

    def test_a_task_file_is_graded_by_its_hidden_tests(self, repository: Path, tmp_path: Path) -> None:
        toml = (
            'statement = "total is wrong"\n[repository]\npath ='
            f' "{repository}"\n[grading.files]\n"tests/test_hidden.py" = \'\'\'\nfrom calc import total\n\ndef'
            " test_it():\n    assert total([5, 6]) == 11\n'''\n"
        )
        (tmp_path / "sum.toml").write_text(toml)
        with serving([PLAN, RIGHT, SUBMIT]) as server:
            done = troop(
                *("solve", "sum.toml", "--grade", "--json", "-n", 1, "--model", f"{server.url}#scripted"),
                *("--sandbox", "bubblewrap"),
                cwd=tmp_path,
            )
            said = "".join(r.raw.decode() for r in server.requests)
        report = json.loads(done.stdout)
        assert report["graded"]["resolved"] is True
        assert "test_hidden" not in said, "hidden tests reach no model"
        assert "test_hidden" not in (Path(report["directory"]) / "run.json").read_text()

    def test_report_and_replay_read_the_run(self, repository: Path, tmp_path: Path) -> None:
        with serving(SOLVING) as server:
            report = json.loads(self.solve(repository, server.url, "--json", cwd=tmp_path).stdout)
        shown = troop("report", report["directory"])
        assert shown.returncode == 0 and "for value in values:" in shown.stdout
        again = json.loads(troop("report", report["directory"], "--json").stdout)
        assert again["selected"] == report["selected"]
        played = troop("replay", report["directory"])
        assert played.returncode == 0 and "total skips the first value" in played.stdout
        assert troop("replay", report["directory"], "--attempt", 7).returncode == 2
        page = tmp_path / "run.html"
        assert troop("report", report["directory"], "--html", page).returncode == 0
        assert "for value in values:" in page.read_text()
