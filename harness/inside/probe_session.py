"""Runs the steps of one probe inside a sandbox; self-contained, Python 3.6 and newer.

Standard input: {"steps": [source, …], "packages": [import names], "views": [functions], "step_seconds": s, of processor
time}. Each step is run as if typed at a prompt, in one namespace; a later one runs though an earlier one failed. A name
that nothing defines is looked for in the packages, as a reader of the text would. For each step one JSON line goes to
the file named by the first argument: {"out": what it printed and displayed, "views": {name: text}, "error": exception's
name, "message": …}.
"""

import ast
import builtins
import importlib
import io
import json
import pkgutil
import re
import signal
import sys
import traceback
import types
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

TEXT = 4000
LEFT_OUT = {"tests", "test", "testing", "benchmarks"}
FULL = {"np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot", "sns": "seaborn", "sp": "sympy", "mpl": "matplotlib"}


class TooSlow(BaseException):
    """A step took longer than it may."""


def main(report: str) -> None:
    wanted = json.loads(sys.stdin.read())
    sys.argv = [""]
    sys.path.insert(0, str(Path.cwd()))
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    signal.signal(signal.SIGPROF, _too_slow)
    displayed = _Displayed()
    sys.displayhook = displayed
    with Path(report).open("w", encoding="utf-8", errors="backslashreplace") as lines:
        for step in wanted["steps"]:
            seen = _step(step, namespace, wanted["packages"], displayed, wanted["views"], wanted["step_seconds"])
            lines.write(json.dumps(seen) + "\n")
            lines.flush()


class _Displayed:
    """A display hook that keeps the value, too."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def __call__(self, value: "Any") -> None:
        if value is not None:
            self.values.append(value)
            vars(builtins)["_"] = value
            print(repr(value))


def _step(
    source: str,
    namespace: "dict[str, Any]",
    packages: "list[str]",
    displayed: _Displayed,
    views: "list[str]",
    seconds: float,
) -> "dict[str, Any]":
    tried: set[str] = set()
    while True:
        out = io.StringIO()
        displayed.values.clear()
        error: BaseException | None = None
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            with redirect_stdout(out), redirect_stderr(out):
                for node in ast.parse(source).body:
                    _run(node, namespace, displayed)
        except (Exception, SystemExit, TooSlow, KeyboardInterrupt) as caught:
            error = caught
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        missing = _missing_name(error)
        if missing is None or missing in tried or len(tried) > 20:
            break
        tried.add(missing)
        if not _define(missing, namespace, packages):
            break
    return {
        "out": out.getvalue()[:TEXT],
        "views": {} if error is not None else _views(displayed.values[-1:], views, seconds),
        "error": type(error).__name__ if error is not None else "",
        "message": _text(error)[:TEXT] if error is not None else "",
    }


def _run(node: ast.stmt, namespace: "dict[str, Any]", displayed: _Displayed) -> None:
    """One statement as a prompt runs it. The value is kept even if the text set a display hook."""
    if isinstance(node, ast.Expr):
        value = eval(compile(ast.Expression(node.value), "<probe>", "eval"), namespace)
        if value is not None and sys.displayhook is not displayed:
            displayed.values.append(value)
        sys.displayhook(value)
    else:
        exec(compile(ast.Interactive(body=[node]), "<probe>", "single"), namespace)


def _missing_name(error: "BaseException | None") -> "str | None":
    """The name that a step of the text itself used and nothing defines."""
    if not isinstance(error, NameError) or isinstance(error, UnboundLocalError):
        return None
    frames = traceback.extract_tb(error.__traceback__)
    match = re.search(r"name '(\w+)' is not defined", str(error))
    return match.group(1) if match and frames and frames[-1].filename == "<probe>" else None


def _define(name: str, namespace: "dict[str, Any]", packages: "list[str]") -> bool:
    """Bind a name as a reader would: what a package offers under it, a module of that name, a symbol of one letter."""
    for package in packages:
        module = _imported(package)
        if module is not None and hasattr(module, name):
            namespace[name] = getattr(module, name)
            return True
    whole = _imported(FULL.get(name, name)) if name in FULL or name in packages or _is_module(name) else None
    if whole is not None:
        namespace[name] = whole
        return True
    if "sympy" in packages and len(name) == 1:
        make = "Function" if name in "fgh" else "Symbol"
        whole_numbers = {"integer": True} if name in "kmn" else {}
        namespace[name] = getattr(_imported("sympy"), make)(name, **whole_numbers)
        return True
    return any(_from_within(name, namespace, package) for package in packages)


def _from_within(name: str, namespace: "dict[str, Any]", package: str) -> bool:
    """A name that a module within the package defines at its top level."""
    top = _imported(package)
    places = [Path(place) for place in getattr(top, "__path__", ())]
    pattern = re.compile(r"^(?:class|def)\s+{0}\b|^{0}\s*=".format(re.escape(name)), re.MULTILINE)
    for place in places[:1]:
        for path in sorted(place.rglob("*.py")):
            parts = path.relative_to(place.parent).with_suffix("").parts
            if set(parts) & LEFT_OUT or not pattern.search(path.read_text(encoding="utf-8", errors="replace")):
                continue
            module = _imported(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
            if module is not None and hasattr(module, name):
                namespace[name] = getattr(module, name)
                return True
    return False


def _is_module(name: str) -> bool:
    return len(name) > 2 and any(m.name == name for m in pkgutil.iter_modules())


def _imported(name: str) -> "types.ModuleType | None":
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit):  # a patch may have broken the package; the step that needs it will say so
        return None


def _views(values: "list[Any]", views: "list[str]", seconds: float) -> "dict[str, str]":
    """Other ways to look at the value that was displayed last."""
    found: dict[str, str] = {}
    for value in values:
        makers: dict[str, Any] = {"str": str, "type": lambda v: type(v).__name__}
        for view in views:
            module, _, function = view.rpartition(".")
            makers[view] = getattr(_imported(module), function, str)
        for name, make in makers.items():
            signal.setitimer(signal.ITIMER_PROF, seconds)
            try:
                found[name] = str(make(value))[:TEXT]
            except (Exception, TooSlow) as error:
                found[name] = "raises " + type(error).__name__
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
    return found


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<no text>"


def _too_slow(number: int, frame: "Any") -> None:
    raise TooSlow("took too long")


if __name__ == "__main__":
    main(sys.argv[1])
