"""The project's own Django test runner, reporting every test as `troop_unittest` does.

    python manage.py test --testrunner troop_django.Runner LABELS

Runs inside the sandbox, Python 3.6 and newer (hence the quoted annotations); told what to do by the same variables.
"""

from typing import TYPE_CHECKING

from django.conf import settings  # type: ignore[import-not-found]
from django.test.utils import get_runner  # type: ignore[import-not-found]
from troop_unittest import Report, each, results  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from typing import Any

REPORT = Report()


class Runner(get_runner(settings)):  # type: ignore[misc]  # what it is, the project says
    """Runs what is selected, and tells the report."""

    def get_resultclass(self) -> "Any":
        return results(REPORT)

    def run_suite(self, suite: "Any", **options: "Any") -> "Any":
        if REPORT.first:
            self.failfast = True
        REPORT.loaded.update(REPORT.name(test).partition("::")[0] for test in each(suite))
        REPORT.plan(suite)
        result = super().run_suite(suite, **options)
        REPORT.finish(0 if result.wasSuccessful() else 1)
        return result
