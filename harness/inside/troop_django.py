"""The project's own Django test runner, reporting every test as `troop_unittest` does.

    python manage.py test --testrunner troop_django.Runner LABELS

Runs inside the sandbox, Python 3.6 and newer (hence the quoted annotations); told what to do by the same variables.
"""

from typing import TYPE_CHECKING

from django.conf import settings  # type: ignore[import-not-found]  # the sandbox's Django
from django.test.utils import get_runner  # type: ignore[import-not-found]  # likewise
from troop_unittest import LOADER, NO_TESTS_FOUND, RUN, Result, each  # type: ignore[import-not-found]  # beside it

if TYPE_CHECKING:
    from typing import Any


class Runner(get_runner(settings)):  # type: ignore[misc]  # what it is, the project says
    """Runs what is selected, and tells the report."""

    def get_resultclass(self) -> "Any":
        return Result

    def run_suite(self, suite: "Any", **options: "Any") -> "Any":
        if RUN.first:
            self.failfast = True
        RUN.loaded.update(RUN.name(test).partition("::")[0] for test in each(suite))
        RUN.plan(suite, LOADER)
        result = super().run_suite(suite, **options)
        status = int(not result.wasSuccessful()) if RUN.told else NO_TESTS_FOUND
        RUN.finish(status)
        return result
