"""Which file of a base imports which, found by reading alone: nothing is imported or run.

`from package import name` is followed through what packages re-export (star imports too) to the file that defines the
name, so that a package whose `__init__.py` offers everything is no hub that brings all its parts near to each other.
Built once for a commit and kept in the cache.
"""

import ast
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.cache import read_json, write_json
from harness.code.facts import parsed

FORMAT = "1"
"""Part of the name of what is kept: a graph found in another way is not taken for this."""
MOST_FILES = 20_000
"""Of a base with more Python files than this no graph is made: reading them would take minutes."""

_ROOTS = ("", "src/", "lib/")

# Parsing all of sympy takes half a minute, and old code does not parse at all; its import statements by themselves do.
_IMPORT = re.compile(
    r"^([ \t]*)(from[ \t]+[\w.]+[ \t]+import[ \t]*(?:\([^)]*\)|(?:[^\n\\;]|\\\n)*)|import[ \t]+(?:[^\n\\;]|\\\n)*)",
    re.MULTILINE,
)
_DEFINED = re.compile(
    r"^(?:(?:async[ \t]+)?def|class)[ \t]+(\w+)|^(\w+(?:[ \t]*,[ \t]*\w+)*)[ \t]*(?::[^=\n]*)?=(?!=)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class ImportGraph:
    """`imports`: by file, the files that it imports anything from."""

    imports: Mapping[str, frozenset[str]]

    def reaching(self, path: str, among: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
        """Of the files `among`: those that import `path`, and those that only import a file which does."""
        between = {file for file, targets in self.imports.items() if path in targets}
        first = frozenset(between.intersection(among))
        second = frozenset(file for file in among if not between.isdisjoint(self.imports.get(file, ())))
        return first, second - first - {path}


NO_IMPORTS = ImportGraph({})


def import_graph(
    commit: str, paths: Iterable[str], read_all: Callable[[Sequence[str]], Mapping[str, bytes]], kept: Path
) -> ImportGraph:
    """The graph of a commit's files `paths`, whose bytes `read_all` gives. `kept`: the directory of graphs."""
    place = kept / f"{commit}-{FORMAT}.json"
    known = read_json(place)
    if known is not None:
        files = known["files"]
        return ImportGraph({files[at]: frozenset(files[n] for n in to) for at, to in enumerate(known["imports"])})
    files = [path for path in paths if path.endswith(".py")]
    found = graph_of(read_all(files) if len(files) <= MOST_FILES else {})
    files = sorted(found.imports)
    numbers = {path: number for number, path in enumerate(files)}
    imports = [sorted(numbers[to] for to in found.imports[path]) for path in files]
    write_json(place, {"files": files, "imports": imports}, indent=None)
    return found


def graph_of(sources: Mapping[str, bytes]) -> ImportGraph:
    """The graph of Python files, given by path."""
    modules = {path: _facts(source) for path, source in sources.items()}
    tree = _Tree(modules)
    return ImportGraph({path: frozenset(tree.imported_by(path)) for path in sorted(modules)})


@dataclass(frozen=True, slots=True)
class _Import:
    """One imported thing: of `import module`, `name` is None; of a star import it is "*"."""

    module: str
    level: int
    name: str | None
    bound: str


@dataclass(slots=True)
class _Module:
    """What one file says of itself: `defined`, the names that it defines at its top; what it imports there, by the name
    that this gets (`offered`), and from where it takes all names (`stars`); what it imports anywhere."""

    defined: set[str] = field(default_factory=set)
    offered: dict[str, _Import] = field(default_factory=dict)
    stars: list[_Import] = field(default_factory=list)
    every: list[_Import] = field(default_factory=list)


def _facts(source: bytes) -> _Module:
    text = source.decode("utf-8", "replace")
    found = _Module({name for match in _DEFINED.finditer(text) for name in re.findall(r"\w+", match[1] or match[2])})
    for match in _IMPORT.finditer(text):
        imports = list(_imported(match[2]))
        found.every += imports
        if not match[1] or match[1] == "    ":
            found.stars += [one for one in imports if one.name == "*"]
            found.offered.update({one.bound: one for one in imports if one.name not in (None, "*")})
    return found


def _imported(statement: str) -> Iterator[_Import]:
    tree = parsed(statement.encode())
    for node in tree.body if tree else []:
        if isinstance(node, ast.Import):
            yield from (_Import(a.name, 0, None, a.asname or a.name.partition(".")[0]) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (_Import(node.module or "", node.level, a.name, a.asname or a.name) for a in node.names)


class _Tree:
    """Finds files by import path, and names through what packages re-export."""

    def __init__(self, modules: Mapping[str, _Module]) -> None:
        self._modules = modules
        self._by_name: dict[str, str] = {}
        for root in _ROOTS:
            for path in sorted(modules):
                if path.startswith(root):
                    self._by_name.setdefault(_dotted(path.removeprefix(root)), path)
        for path in sorted(modules):
            self._by_name.setdefault(_dotted(path.removeprefix(self._above_package(path))), path)
        self._homes: dict[tuple[str, str], str | None] = {}

    def imported_by(self, path: str) -> set[str]:
        found: set[str] = set()
        for one in self._modules[path].every:
            place = self._file(path, one)
            if one.name in (None, "*"):
                found.update([place] if place else [])
            else:
                found.update(self._places(path, one, place))
        return found - {path}

    def _places(self, path: str, one: _Import, place: str | None) -> set[str]:
        """The files behind `from place import name`: a submodule, or the file named and the one that defines it."""
        name = one.name or ""
        home = self._home(place, name) if place else None
        known = place is not None and (home not in (None, place) or name in self._modules[place].defined)
        below = None if known else self._submodule(path, one, name)
        if below or place is None:
            return {below} if below else set()
        return {place, home or place}

    def _home(self, path: str, name: str) -> str | None:
        """The file that defines what `path` offers as `name`; None where that cannot be told."""
        key = (path, name)
        if key not in self._homes:
            self._homes[key] = None  # what imports in a circle ends here
            self._homes[key] = self._look_for(path, name)
        return self._homes[key]

    def _look_for(self, path: str, name: str) -> str | None:
        module = self._modules[path]
        if name in module.offered:
            one = module.offered[name]
            place = self._file(path, one)
            below = self._submodule(path, one, one.name or "")
            home = self._home(place, one.name or "") if place and place != path else None
            return home or below or (place if place != path else None)
        if name in module.defined:
            return path
        places = [place for star in module.stars if (place := self._file(path, star)) and place != path]
        return next((home for place in places if (home := self._home(place, name))), None)

    def _file(self, path: str, one: _Import) -> str | None:
        if not one.level:
            return self._by_name.get(one.module)
        folder = path.rpartition("/")[0]
        for _ in range(one.level - 1):
            folder = folder.rpartition("/")[0]
        return self._at("/".join(part for part in (folder, one.module.replace(".", "/")) if part))

    def _submodule(self, path: str, one: _Import, name: str) -> str | None:
        return self._file(path, _Import(f"{one.module}.{name}".lstrip("."), one.level, None, ""))

    def _at(self, place: str) -> str | None:
        return next((p for p in (f"{place}.py", f"{place}/__init__.py".lstrip("/")) if p in self._modules), None)

    def _above_package(self, path: str) -> str:
        """The folder, with its slash, that the file's outermost package lies in."""
        folder = path.rpartition("/")[0]
        while folder and f"{folder}/__init__.py" in self._modules:
            folder = folder.rpartition("/")[0]
        return folder and folder + "/"


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
