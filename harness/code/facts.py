"""What can be told of Python code without running it: its normal form, the functions that a change touches, and the
names that nothing defines. Only parsed, never compiled to something that could run."""

import ast
import builtins
import copy
import hashlib
import symtable
import warnings
from collections.abc import Iterator
from functools import lru_cache

Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

_KNOWN = frozenset(dir(builtins)) | {
    *("__file__", "__path__", "__builtins__", "__annotations__", "__class__", "WindowsError"),
    # of Python 2, in code that serves both
    *("basestring", "cmp", "execfile", "file", "long", "raw_input", "reduce", "reload", "unichr", "unicode", "xrange"),
}

MOST_BYTES = 2_000_000  # of a source that is parsed: its tree takes some fifty times as much memory
_KEPT = 4
"""Files whose tree is kept: those of the last patch, and of the base beside them. One of 400 kB takes 18 MB."""

FAILS = (SyntaxError, ValueError, LookupError, MemoryError, RecursionError, SystemError)
"""How Python's parser ends on some texts: no Python, a zero byte, an unknown coding, 50,000 signs in a row."""


def parse(source: str | bytes, name: str = "<unknown>") -> ast.Module:
    """The syntax tree. Raises SyntaxError for what the Python that runs Troop cannot parse, whatever the reason."""
    if len(source) > MOST_BYTES:
        raise SyntaxError(f"it is longer than {MOST_BYTES} bytes")
    try:
        return ast.parse(source, name)
    except FAILS as error:
        raise SyntaxError(str(error) or "it is nested too deeply") from error


@lru_cache(maxsize=_KEPT)
def parsed(source: str | bytes | None) -> ast.Module | None:
    """The syntax tree, None for no source or one that cannot be parsed. It is shared: not to be changed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return None if source is None else parse(source)
    except SyntaxError:
        return None


@lru_cache(maxsize=_KEPT)
def undefined_names(source: bytes | None) -> frozenset[str]:
    """Names that are looked up as globals and that no scope of the module binds; nothing is said of a module that
    cannot be parsed or has a star import. By the interpreter's own symbol tables."""
    tree = parsed(source)
    if tree is None or any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in ast.walk(tree)):
        return frozenset()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tables = list(_tables(symtable.symtable((source or b"").decode("utf-8", "replace"), "module", "exec")))
    except FAILS:
        return frozenset()
    bound, wanted = set(_KNOWN), set()
    for table in tables:
        for symbol in table.get_symbols():
            here = table.get_type() == "module"
            if (here or symbol.is_declared_global()) and (symbol.is_assigned() or symbol.is_imported()):
                bound.add(symbol.get_name())
            if symbol.is_referenced() and (here or symbol.is_global()):
                wanted.add(symbol.get_name())
    return frozenset(wanted - bound)


def _tables(top: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield top
    for child in top.get_children():
        yield from _tables(child)


def normal_form(tree: ast.Module) -> str | None:
    """A digest that is the same for code that differs in layout, comments, docstrings, annotations of functions and the
    names of local variables; None for what is nested too deeply to be walked (a sum of hundreds of terms, hundreds of
    `elif`)."""
    try:
        return _digest(ast.dump(_normal(tree)))
    except RecursionError:
        return None


def bodies(tree: ast.Module) -> dict[str, str]:
    """By qualified name ("" for the module itself), a digest of what belongs to that scope alone, in normal form.

    A function within another counts as part of the outer one, a method is apart from its class. Raises RecursionError.
    """
    found: dict[str, str] = {}
    for name, node in scopes(_normal(tree)):
        own = [child for child in node.body if not (isinstance(child, SCOPES) and not isinstance(node, _FUNCTIONS))]
        parts = [ast.dump(child) for child in own]
        if isinstance(node, SCOPES):
            parts += [ast.dump(d) for d in node.decorator_list]
            parts += [ast.dump(node.args)] if isinstance(node, _FUNCTIONS) else [ast.dump(b) for b in node.bases]
        found[name] = _digest("\n".join(parts))
    return found


def touched(before: ast.Module | None, after: ast.Module | None) -> frozenset[str] | None:
    """Qualified names of the scopes whose own code differs, new or gone ones included; None as for `normal_form`."""
    try:
        old, new = bodies(before) if before else {}, bodies(after) if after else {}
    except RecursionError:
        return None
    return frozenset(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def identifiers(tree: ast.Module, *, bound: bool = False) -> frozenset[str]:
    """All names, attributes, keywords and parameters that occur; `bound`: only those that are defined or set there."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=use) | ast.Attribute(attr=name, ctx=use) if bound:
                found |= {name} if isinstance(use, ast.Store) else set()
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.keyword(arg=str(name)) if not bound:
                found.add(name)
            case ast.alias(name=name, asname=other) if not bound:
                found |= {*name.split("."), *([other] if other else [])}
    return frozenset(found)


def scopes(node: ast.Module | Scope, name: str = "") -> Iterator[tuple[str, ast.Module | Scope]]:
    """The module ("") and its classes, functions and methods by their qualified names; none within a function."""
    yield name, node
    if not isinstance(node, _FUNCTIONS):
        for child in node.body:
            if isinstance(child, SCOPES):
                yield from scopes(child, f"{name}.{child.name}" if name else child.name)


def spans(tree: ast.Module) -> dict[str, tuple[int, int]]:
    """First and last line of each class, function and method by its qualified name."""
    found: dict[str, tuple[int, int]] = {}
    for name, node in scopes(tree):
        if isinstance(node, SCOPES):  # a property's setter has its name, too
            first = min(each.lineno for each in (node, *node.decorator_list))
            found[name] = found.get(name, (first, 0))[0], node.end_lineno or first
    return found


class _Normal(ast.NodeTransformer):
    """Takes docstrings and annotations of functions away and numbers the local variables of each; parameters keep their
    names, which callers may use."""

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, (ast.Module, *SCOPES)):
            _without_docstring(node)
        if isinstance(node, _FUNCTIONS):
            _number_locals(node)
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        self.generic_visit(node)
        return node


def _without_docstring(node: ast.Module | Scope) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]


def _number_locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Rename what the function itself binds with `=`, `for`, `with` and the like, in order of first binding."""
    parameters = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
    kept = {name for n in ast.walk(function) if isinstance(n, (ast.Global, ast.Nonlocal)) for name in n.names}
    names: dict[str, str] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id not in parameters | kept:
            names.setdefault(node.id, f"local {len(names)}")
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id in names:
            node.id = names[node.id]


@lru_cache(maxsize=_KEPT)
def _normal(tree: ast.Module) -> ast.Module:
    normal = copy.deepcopy(tree)
    _Normal().visit(normal)
    return normal


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
