"""Runs what starts Django's tests as Python does, and has the project's own runner report as `troop_unittest` does.

    python troop_django.py manage.py test LABELS     in place of `python manage.py …`; or runtests.py, -m django

Runs inside the sandbox, Python 3.6 and newer; told what to do by the same variables. A script that asks Django for no
runner runs as it would.
"""

import runpy
import sys
from pathlib import Path


def reporting(own: type) -> type:
    """The runner, but that it runs what is selected, and tells the report."""
    from troop_unittest import LOADER, NO_TESTS_FOUND, RUN, Result, each  # type: ignore[import-not-found]  # beside it

    class Runner(own):  # type: ignore[misc]  # what it is, the project says
        def get_resultclass(self) -> type:
            kind: type = Result
            return kind

        def run_suite(self, suite: object, **options: object) -> object:
            if RUN.first:
                self.failfast = True
            RUN.loaded.update(RUN.name(test).partition("::")[0] for test in each(suite))
            RUN.plan(suite, LOADER)
            result = super().run_suite(suite, **options)
            RUN.finish(int(not result.wasSuccessful()) if RUN.told else NO_TESTS_FOUND)
            return result

    return Runner


def main() -> None:
    del sys.argv[0]
    module = sys.argv[0] == "-m"
    sys.path[:] = ["" if module else str(Path(sys.argv[0]).resolve().parent), *sys.path[1:], sys.path[0]]
    try:
        from django.test import utils  # type: ignore[import-not-found]  # the sandbox's Django
    except Exception:  # the script will say what is wrong with it, if it is for Django at all
        pass
    else:
        own = utils.get_runner
        utils.get_runner = lambda *given, **named: reporting(own(*given, **named))
    if module:
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
