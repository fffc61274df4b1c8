"""Django's `runtests.py` and a site's `manage.py test`, on which `harness/inside/troop_django.py` reports: both are
limited to files and ids by labels (dotted names) at their end."""

import re
from collections.abc import Sequence

from harness.records import TestReport
from harness.sandbox.base import INSIDE
from harness.testing.report import COMMAND_TEST
from harness.testing.runners import base
from harness.testing.runners.base import Layout, Runner, appended, has_test_files

_LABELLED = re.compile(
    r"(?:^cd (?P<folder>[\w./-]+) &&.*?\s|^|\s)(?:\./)?(?P<below>(?:[\w.-]+/)*)(?:runtests|manage)\.py(?=$|\s)"
)
_BY_PYTEST = r"(?m)^DJANGO_SETTINGS_MODULE|--ds[= ]"
_SITE_FILE = re.compile(r"(?:(?!tests?/|examples?/|docs/|demo/)[\w-]+/)?manage\.py")
_SITE = re.compile(r"(?:^|\s)(?:(?:[\w./-]+/)?manage\.py|-m django) test(?=$|\s)")
_TESTS = re.compile(r"(?:^|/)tests?[^/]*\.py$|(?:^|/)tests/[^/]*\.py$")
_RAN = re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE)
_SCRIPT = re.compile(r"(?<!\S)(?:(\S*python[\d.]*)\s+)?((?:[\w./-]*/)?(?:runtests|manage)\.py|-m django)(?!\S)")


class Django(Runner):
    """A script of that name takes labels; one that starts another framework reports as that does."""

    name = "runtests.py"
    always_reports = False

    def recognises(self, command: str) -> bool:
        found = _LABELLED.search(command)
        return found is not None and found[0].endswith("runtests.py") and appended(command, ["label"]) != command

    def claims(self, layout: Layout) -> tuple[int, str] | None:
        script = next((path for path in ("tests/runtests.py", "runtests.py") if path in layout.paths), None)
        return (base.OWN_SCRIPT, f"python {script}") if script and has_test_files(layout) else None

    def limited(self, command: str, ids: Sequence[str], to_first_failure: bool = False) -> str:
        """Where there are very many ids, to their files, of which the plugin keeps no more than the ids."""
        told = _SCRIPT.sub(lambda found: f"{found[1] or 'python'} {INSIDE}/troop_django.py {found[2]}", command)
        named = ids if len(ids) <= base.APPENDED_FILES else base.files_of(ids)
        return appended(told, list(dict.fromkeys(label_of(command, each) for each in named)))

    def new_file(self, report: TestReport, path: str) -> str:
        """Of a script that starts no Django the exit code is the file's own, if the output says that a test ran."""
        ran = _RAN.findall(report.output)
        if COMMAND_TEST not in report.outcomes or not ran:
            return super().new_file(report, path)
        return report.outcomes[COMMAND_TEST] if any(map(int, ran)) else "missing"


class Site(Django):
    """A Django site's `manage.py test`. A site whose tests pytest runs says pytest which settings are Django's."""

    name = "manage.py test"
    always_reports = True

    def recognises(self, command: str) -> bool:
        return _SITE.search(command) is not None and appended(command, ["label"]) != command

    def claims(self, layout: Layout) -> tuple[int, str] | None:
        sites = [path for path in layout.paths if _SITE_FILE.fullmatch(path)]
        if not sites or not any(map(_TESTS.search, layout.paths)) or re.search(_BY_PYTEST, layout.settings):
            return None
        folder = "" if "manage.py" in sites else sites[0].rpartition("/")[0]
        return (base.CONFIGURED + 1, f"cd {folder} && python manage.py test" if folder else "python manage.py test")


def label_of(command: str, test: str) -> str:
    """The label of a test file, directory or id for Django's runner: `tests/queries/test_q.py::Q::test_x` is
    `queries.test_q.Q.test_x` below the runner's directory. What is none of these is taken for a label."""
    found = _LABELLED.search(command)
    path, _, rest = test.partition("::")
    if "/" not in path and not path.endswith(".py"):
        return test
    for above in (f"{found['folder']}/", found["below"]) if found else ():
        path = path.removeprefix("./").removeprefix(above)
    place = path.removeprefix("./").removesuffix(".py").rstrip("/")
    return ".".join(part for part in (place.replace("/", "."), rest.replace("::", ".")) if part)
