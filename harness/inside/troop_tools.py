"""Runs tests by the tool of another language, and reports every test as `troop_pytest` does.

    python3 troop_tools.py TOOL ARGUMENTS     in place of `TOOL ARGUMENTS`; go, cargo: of `go test`, `cargo test`

Runs inside the sandbox, Python 3.6 and newer; told what to do, and reporting, as `troop_report` says, but for the time
of one test. Ids are `path::name`, nested names with `::` between them (Go: `/`; mocha: a space). Where only
some tests are asked for, others of their files may run, and are told of, too: the exit status speaks of them as well.

Results are what the tools write for programs: Go, Rust and node of each test as it ends (`go test -json`, libtest's
JSON, a reporter of node's), jest, vitest and mocha (9.2 and newer) at the end. libtest's is unstable: stable toolchains
give it under RUSTC_BOOTSTRAP only, which the finished test programs get and the compiler does not, so that no crate is
built in another way. Doc tests, which rustdoc runs, are left out.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import troop_report  # type: ignore[import-not-found]  # beside it, in the sandbox

LINE, KEPT, MESSAGE, LONGEST = 1_000_000, 4000, 1200, 100_000
NO_TESTS_FOUND = 5
NO_VALUE = {"--test", "--recursive", "run", "--exit", "-race", "-v", "-short"}
GO_TEST = re.compile(r"^func ((?:Test|Example|Fuzz)\w*)\(", re.MULTILINE)
GO_UNBUILT = re.compile(r"FAIL\s+(\S+) \[(?:build|setup) failed\]")  # before 1.24 not told in JSON
RUST_RUNNER = 'echo "{\\"executable\\": \\"$0\\"}"; RUSTC_BOOTSTRAP=1 exec "$0" "$@"'
RUST_TARGETS = re.compile(r"--(lib|bins?|tests?|examples?|all-targets|doc)(=|$)")


class Report(troop_report.Report):  # type: ignore[misc]  # known in the sandbox
    """The lines, the files that are asked for, and the end of what was printed. `results`: where a tool may write its
    own; `code`: its exit status."""

    code = told = 0
    printed = ""

    def __init__(self) -> None:
        super().__init__()
        self.results = self.place + ".results"
        wanted = self.select or ["."]
        self.names = [] if "." in wanted else [test.partition("::")[2] for test in wanted]
        self.files = sorted({test.partition("::")[0].rstrip("/") for test in wanted} if self.names else ())
        self.places = ["./" + os.path.relpath(f"{self.root}/{file}") for file in self.files]

    def path(self, file: str) -> str:
        return os.path.relpath(os.path.realpath(file), self.root)

    def tell(self, test: str, status: str, message: str = "", seconds: float = 0.0) -> None:
        """How a test ended, by its tool's word for it, or (error) that a whole file did."""
        outcome = {"pass": "passed", "ok": "passed", "fail": "failed"}.get(status, status)
        outcome = outcome if outcome in ("passed", "failed", "error") else "skipped"
        message, self.told = message.strip(), self.told + 1
        message = message if len(message) <= MESSAGE else f"{message[: MESSAGE // 2]}\n…\n{message[-MESSAGE // 2 :]}"
        super().tell(test, outcome, message, seconds)
        if outcome in ("failed", "error"):
            self.show(f"--- {outcome}: {test}\n{message}\n")

    def show(self, text: str) -> None:
        self.printed = (self.printed + text)[-KEPT:]
        print(text, end="", flush=True)

    def lines(self, *command: str) -> Any:
        """The objects that a command writes, one a line; what else it writes is shown."""
        environment = {**os.environ, "CI": "true", "NO_COLOR": "1", "FORCE_COLOR": "0"}
        environment["PATH"] = f"node_modules/.bin:{self.root}/node_modules/.bin:{os.environ['PATH']}"
        tool = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in iter(lambda: tool.stdout.readline(LINE), b""):  # type: ignore[union-attr]  # it is a pipe
            try:
                yield json.loads(line if line.startswith(b"{") else b"")
            except ValueError:
                text = line.decode("utf-8", "replace")
                self.show(text)
                yield {"text": text}
        self.code = tool.wait()

    def end(self) -> int:
        """Write how the run ended, by the tool's own word; the exit status. One that was killed did not finish."""
        if self.code < 0:
            return 128 - self.code
        self.finish(1 if self.code else 0 if self.told else NO_TESTS_FOUND)
        return self.code if self.code or self.told else NO_TESTS_FOUND


def placeless(report: Report, words: "list[str]") -> "list[str]":
    """A tool's arguments; where files are asked for, without what else says where tests are."""
    of_flags = [False, *(word[:1] == "-" and "=" not in word and word not in NO_VALUE for word in words)]
    places = ["*" in word or word.startswith(".") or Path(word).exists() for word in words]
    kept = (at for at, word in enumerate(words) if "..." not in word and (of_flags[at] or not places[at]))
    return [words[at] for at in kept] if report.files else words


def go(report: Report, words: "list[str]") -> None:
    listing = ["go", "list", "-e", "-f", "{{.ImportPath}}\t{{.Dir}}", "./..."]
    listed = subprocess.run(listing, stdout=subprocess.PIPE, check=False).stdout.decode("utf-8", "replace")
    tests: dict[str, dict[str, list[str]]] = {}  # by package and file
    for package, _, folder in (line.partition("\t") for line in listed.splitlines()):
        texts = {file: file.read_text("utf-8", "replace") for file in sorted(Path(folder).glob("*_test.go"))}
        tests[package] = {report.path(str(file)): GO_TEST.findall(text) for file, text in texts.items()}
    if report.files:
        every = {file: names for files in tests.values() for file, names in files.items()}
        of_files = [name for file in report.files for name in every.get(file, [".*"])]
        names = [name.partition("/")[0] for name in report.names] if all(report.names) else of_files
        places = (place.rpartition("/")[0] if place.endswith(".go") else place + "/..." for place in report.places)
        pattern = f"^({'|'.join(sorted({*names}))})$"
        words = [*placeless(report, words), "-run", pattern if len(pattern) < LONGEST else ".", *sorted({*places})]
    said: dict[str, str] = {}
    failed = set()
    for event in report.lines("go", "test", "-json", "-count=1", *["-failfast"] * report.first, *words):
        unbuilt = GO_UNBUILT.match(event.get("text", ""))
        package, action = unbuilt[1] if unbuilt else event.get("Package", ""), event.get("Action")
        test, text, files = event.get("Test", ""), event.get("Output", ""), tests.get(package, {})
        name = next((file for file in files if test.partition("/")[0] in files[file]), package) + "::" + test
        said[name] = (said.get(name, "") + text)[-KEPT:]
        if test and action in ("pass", "fail", "skip"):
            report.tell(name, action, said.pop(name), event["Elapsed"])
            failed.update([package] * (action == "fail"))
        elif not test:
            report.show(text)
            if (unbuilt or action == "fail") and package not in failed:  # no test failed, but all as a whole
                for file in files:
                    report.tell(file, "error", report.printed)


def cargo(report: Report, words: "list[str]") -> None:
    at = words.index("--") if "--" in words else len(words)
    own, passed = words[:at], words[at + 1 :]
    if not any(map(RUST_TARGETS.match, own)):
        integration = bool(report.files) and all(re.search(r"(^|/)tests/[^/]+\.rs$", file) for file in report.files)
        own += [f"--test={Path(file).stem}" for file in report.files] if integration else ["--tests"]
    own += ["--message-format=json", "--config", f'target."cfg(all())".runner={json.dumps(["sh", "-c", RUST_RUNNER])}']
    passed += ["-Zunstable-options", "--format=json", "--report-time"]
    passed += ["--exact", *report.names] if report.names and all(report.names) else []
    programs: dict[str, Any] = {}
    target: Any = {}
    under_way: set[str] = set()
    for event in report.lines("cargo", "test", *own, *["--no-fail-fast"] * (not report.first), "--", *passed):
        kind, what = event.get("reason") or event.get("type"), event.get("event", "")
        if kind == "compiler-artifact":
            programs[event["executable"]] = event["target"]
        elif kind == "compiler-message" and event["message"]["level"].startswith("error"):
            report.show(event["message"]["rendered"])
            report.tell(report.path(event["target"]["src_path"]), "error", event["message"]["rendered"])
        elif kind == "suite":
            (under_way.add if what == "started" else under_way.discard)(report.path(target["src_path"]))
        elif kind == "test" and what not in ("started", "timeout"):
            said, name = event.get("stdout") or event.get("message", ""), report.path(target["src_path"])
            report.tell(f"{name}::{event['name']}", what, said, event.get("exec_time", 0.0))
        elif "executable" in event:
            target = programs.get(event["executable"], target)
    for file in sorted(under_way):  # its tests ended it
        report.tell(file, "error", report.printed)


def node(report: Report, words: "list[str]") -> None:
    reporter = Path(__file__).resolve().with_name("node_reporter.mjs")
    options = [f"--test-reporter={reporter}", "--test-reporter-destination=stdout"]
    for event in report.lines("node", *options, *placeless(report, words), *report.places):
        if "names" in event and event.get("of") not in ("subtestsFailed", "suite"):
            file = report.path(event["file"])
            whole = report.path(event["names"][0]) == file and len(event["names"]) == 1
            name, status = (file, "error") if whole else ("::".join((file, *event["names"])), event["status"])
            report.tell(name, status, event["message"] or report.printed * whole, event["duration"] / 1000)


def written(report: Report, *command: str) -> Any:
    """What a command wrote at its end."""
    for _ in report.lines(*command, *report.places):
        pass
    return json.loads(Path(report.results).read_text("utf-8")) if Path(report.results).exists() else {}


def jest(report: Report, words: "list[str]") -> None:
    words, bail = [word for word in placeless(report, words) if word != "run"], ["--bail=1"] * report.first
    command = ["jest", *words, "--ci", "--json", f"--outputFile={report.results}"]
    if sys.argv[1] == "vitest":
        reporters = ["--reporter=default", "--reporter=json", f"--outputFile.json={report.results}"]
        command = ["vitest", "run", *words, *reporters]
    elif any(map(os.path.isfile, report.places)):
        bail.append("--runTestsByPath")
    for each in written(report, *command, *bail).get("testResults", ()):
        file, tests = report.path(each["name"]), each["assertionResults"]
        for test in tests:
            name = "::".join((file, *filter(None, test["ancestorTitles"]), test["title"]))
            said = "\n".join(test.get("failureMessages") or ())
            report.tell(name, test["status"], said, (test.get("duration") or 0.0) / 1000)
        if each["status"] == "failed" and all(test["status"] != "failed" for test in tests):
            report.tell(file, "error", each.get("message", ""))


def mocha(report: Report, words: "list[str]") -> None:
    options = ["--reporter=json", f"--reporter-option=output={report.results}", *["--bail"] * report.first]
    found = written(report, "mocha", *options, *placeless(report, words))
    if not found and report.code not in (126, 127) and [*map(os.path.exists, report.places)] == [True]:
        report.tell(report.files[0], "error", report.printed)  # what cannot be loaded ends mocha
    for kind, status in (("passes", "pass"), ("failures", "fail"), ("pending", "skip")):
        for test in found.get(kind, ()):
            name = report.path(test.get("file") or ".") + "::" + test["fullTitle"]
            report.tell(name, status, test["err"].get("stack", ""), test.get("duration", 0.0) / 1000)


def main() -> int:
    report = Report()
    {"go": go, "cargo": cargo, "node": node, "mocha": mocha}.get(sys.argv[1], jest)(report, sys.argv[2:])
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
