"""Mutants are small text edits of every usual kind, with pieces from the program itself, and the plausible ones come
first."""

from __future__ import annotations

import ast
import difflib
import textwrap
import threading
import time
import tracemalloc
import warnings

import pytest

from agent.repair.mutate import HEADER_SHARE, LONGEST_EDIT, MOST, Mutant, mutants, share_of, surroundings
from agent.repair.mutation.source import Stopped, hush, meaning


def on_line(code: str, line: int, **donors: str) -> list[Mutant]:
    """The mutants with only this line under suspicion."""
    return mutants(
        {"a.py": textwrap.dedent(code)}, {("a.py", line): 1.0}, donors={f"{k}.py": v for k, v in donors.items()}
    )


def becomes(code: str, line: int, **donors: str) -> set[str]:
    """What the line may become: the new texts, without indentation, several lines joined by `|`."""
    return {"|".join(part.strip() for part in m.new.splitlines()) for m in on_line(code, line, **donors)}


SEARCH = """\
def search(items, wanted):
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        if items[middle] == wanted:
            return middle
        low = middle
    return -1
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (3, "while low <= high:"),  # relation
        (3, "while low > high:"),
        (3, "while low < high - 1:"),  # off by one
        (3, "while True:"),  # constant condition
        (3, "while low < high and items:"),  # condition added
        (3, "while not low < high:"),  # has the meaning of >=
        (4, "middle = (low - high) // 2"),  # arithmetic
        (4, "middle = (low + high) / 2"),
        (4, "middle = (low + high) // 3"),  # constant
        (4, "middle = (low + low) // 2"),  # variable
        (4, "middle = low + high"),  # operand left out
        (4, "middle += (low + high) // 2"),  # augmented
        (5, "if items[middle + 1] == wanted:"),
        (5, "if items[middle] != wanted:"),
        (5, "if items[low] == wanted:"),
        (6, "return items"),  # other value
        (6, "return -1"),  # returned elsewhere
        (7, "low = middle + 1"),
        (7, "high = middle"),  # other target
        (7, "low += 1|return -1"),  # statement put in
        (7, ""),  # statement left out
        (7, "low = max(high, middle)"),  # held by a bound
        (8, "return 1"),
    ],
)
def test_a_line_may_become(line: int, expected: str) -> None:
    found = becomes(SEARCH, line)
    alternatives = {expected, expected.replace("not low < high", "low >= high")}
    assert alternatives & found


@pytest.mark.parametrize(
    ("code", "line", "expected"),
    [
        ("def f(a, b):\n    return g(a, b)\n", 2, "return g(b, a)"),
        ("def f(a, b):\n    return a and b\n", 2, "return a or b"),
        ("def f(a, b):\n    return a and not b\n", 2, "return a and b"),
        ("def f(a, b):\n    return a and b\n", 2, "return b"),
        ("def f(a, b):\n    return a ^ b\n", 2, "return a & b"),
        ("def f(a):\n    if a:\n        return 1\n", 2, "if a is not None:"),
        ("def f(a):\n    return not a.b\n", 2, "return a.b is None"),
        ("def f(a, b):\n    while a is None or b:\n        b = a\n", 2, "while not a or b:"),
        ("def f(a, b):\n    a += b\n    return a\n", 2, "a = b"),
        ("def f(a):\n    return a.find('x')\n", 2, "return a.rfind('x')"),
        ("def f(a):\n    a.add(a.left)\n    return a.right\n", 3, "return a.left"),
        ("def f(a):\n    return all(x for x in a)\n", 2, "return any(x for x in a)"),
        ("def f(a, i):\n    return a[i:]\n", 2, "return a[i + 1:]"),
        ("def f(a, n):\n    for x in range(n):\n        print(x, a)\n", 2, "for x in range(n + 1):"),
        ("def f(a):\n    return sorted(a)\n", 2, "return a"),
        ("def f(a, i, j):\n    return a[i, j]\n", 2, "return a[j, i]"),
        ("def f(a):\n    b = list(a)\n    return a\n", 3, "return list(a)"),
        ("def f(a):\n    return 'x'\nS = 'y'\n", 2, "return 'y'"),
        ("def f(a, flag=True):\n    return a\n", 1, "def f(a, flag=False):"),
        ("def f(a):\n    return []\n", 2, "return [[]]"),
        ("def f(a):\n    return a\n", 2, "if not a:|return None|return a"),
        ("def f(a):\n    while True:\n        a.pop()\n", 2, "while a:"),
        (
            "def f(a):\n    out = []\n    for x in a:\n        out.append(x)\n    return out\n",
            5,
            "out.append(a)|return out",
        ),
    ],
)
def test_every_family_of_operators(code: str, line: int, expected: str) -> None:
    assert expected in becomes(code, line)


def test_pieces_come_from_other_files_of_the_package_too() -> None:
    code = "def f(value):\n    return value\n"
    assert "return value.casefold()" in becomes(code, 2, near="def g(value):\n    return value.casefold()\n")
    assert "return value.casefold()" not in becomes(code, 2)


def test_names_out_of_scope_are_not_used() -> None:
    code = "def f(a):\n    b = a\n    c = [d for d in a]\n    return c\n\ndef g(e):\n    return e\n"
    function = [ast.parse(m.apply(code)).body[0] for m in on_line(code, 2)]
    seconds = [f.body[0] for f in function if isinstance(f, ast.FunctionDef)]
    names = {n.id for s in seconds for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assert "a" in names
    assert not {"c", "e"} & names  # c is not bound yet, e belongs to another function


ODD = """\
class Box:
\tdef area( self,w ,h ) :   # odd layout stays
\t\treturn (w*h   +  0)  # not "pretty"

    # a comment in the wrong column

\tdef side(self, ä, b):
\t\tx = f"{ä}é" ; return x [ : b ]
"""


def test_a_mutant_changes_nothing_but_its_place() -> None:
    found = mutants({"a.py": ODD}, {("a.py", n): 1.0 for n in range(1, 10)})
    assert len(found) > 50
    for mutant in found:
        text = mutant.apply(ODD)
        ast.parse(text)
        diff = list(difflib.ndiff(ODD.split("\n"), text.split("\n")))
        changed = {line[2:] for line in diff if line[0] == "-"}
        assert len(changed) <= 2 + mutant.old.count("\n")
        assert "# odd layout stays" in text and "# a comment in the wrong column" in text


def test_an_expression_mutant_is_a_one_line_diff() -> None:
    for mutant in on_line(SEARCH, 5):
        if mutant.operator in ("compare", "variable", "off-by-one", "donor", "add-condition"):
            assert mutant.old.count("\n") == mutant.new.count("\n") == 0


def test_line_ends_are_kept() -> None:
    code = SEARCH.replace("\n", "\r\n")
    for mutant in mutants({"a.py": code}, {("a.py", n): 1.0 for n in range(1, 9)}):
        text = mutant.apply(code)
        assert text.count("\r\n") == text.count("\n")


def test_what_says_the_same_is_tried_once() -> None:
    code = "def f(a, b):\n    if not a < b:\n        return a\n    return b\n"
    meanings = []
    for mutant in on_line(code, 2):
        meanings.append(ast.dump(ast.parse(mutant.apply(code))))
    assert len(meanings) == len(set(meanings))
    assert ast.dump(ast.parse(code)) not in meanings
    found = becomes(code, 2)
    assert len({"if a < b:", "if b > a:"} & found) == 1


def test_new_text_is_put_in_parentheses_only_where_it_must() -> None:
    code = "def f(a, b):\n    c = a - b\n    d = c * a\n    return d\n"
    assert "d = (a - b) * a" in becomes(code, 3)
    assert "return a - b" in becomes(code, 4)


def test_suspicious_lines_come_first_and_others_not_at_all() -> None:
    found = mutants({"a.py": SEARCH}, {("a.py", 7): 1.0, ("a.py", 3): 0.05})
    assert {m.line for m in found} <= {3, 7, 8}  # a statement may be put in before the line after
    assert {m.line for m in found[:20]} == {7}


def test_the_order_is_the_same_every_time() -> None:
    assert on_line(SEARCH, 4) == on_line(SEARCH, 4)


def test_files_that_are_not_python_are_left_out() -> None:
    assert mutants({"a.py": "print 'old'\n"}, {("a.py", 1): 1.0}) == []


def test_headers_and_constants_are_suspected_with_what_rests_on_them() -> None:
    code = "LIMIT = 3\n\ndef f(a=1):\n    return a + LIMIT\n"
    spread = surroundings({"a.py": code}, {("a.py", 4): 1.0})
    assert spread["a.py", 3] == HEADER_SHARE
    assert 0 < spread["a.py", 1] < HEADER_SHARE


def dealt(found: list[Mutant], index: int, attempts: int, turns: int, *, seed: int, common: int) -> list[Mutant]:
    return share_of(found, index=index, attempts=attempts, turns=turns, common=common, seed=seed)


def test_attempts_share_the_mutants_out_without_overlap() -> None:
    found = on_line(SEARCH, 4)[:96]
    shares = [dealt(found, i, 8, 12, seed=i, common=0) for i in range(8)]
    tried = [mutant for share in shares for mutant in share]
    assert all(len(share) == 12 for share in shares)
    assert len(set(tried)) == len(tried) == 96
    best = set(found[:8])
    assert sum(bool(best & set(share)) for share in shares) >= 5


def test_the_seeds_matter_and_are_all_that_does() -> None:
    found = on_line(SEARCH, 4)

    def share(seed: int, common: int) -> list[Mutant]:
        return dealt(found, 1, 4, 20, seed=seed, common=common)

    assert share(1, 1) == share(1, 1)
    assert share(1, 1) != share(2, 1)
    assert set(share(1, 1)) == set(share(2, 1))  # the attempt's seed orders its share
    assert set(share(1, 1)) != set(share(1, 2))  # the run's seed makes the shares


def test_there_are_no_more_turns_than_mutants() -> None:
    found = on_line(SEARCH, 4)[:40]
    assert sorted(m.new for m in dealt(found, 0, 1, 60, seed=0, common=0)) == sorted(m.new for m in found)


def test_a_mutant_of_another_text_is_refused() -> None:
    mutant = on_line(SEARCH, 4)[0]
    with pytest.raises(ValueError, match="line 4"):
        mutant.apply(SEARCH.replace("middle", "center"))


def with_table(entries: int) -> str:
    rows = "".join(f"    'k{n}': ({n}, 'v{n}'),\n" for n in range(entries))
    return f"def f(a, b):\n    if a in TABLE:\n        return TABLE[a]\n    return a + b\n\nTABLE = {{\n{rows}}}\n"


@pytest.mark.parametrize("entries", [100, 2_000])
def test_a_table_beside_the_suspicious_lines_costs_next_to_nothing(entries: int) -> None:
    code = with_table(entries)

    def search() -> list[Mutant]:
        return mutants({"a.py": code}, surroundings({"a.py": code}, {("a.py", n): 1.0 for n in (2, 3, 4)}))

    began = time.process_time()
    found = search()
    assert time.process_time() - began < 2
    assert len([m for m in found if m.line <= 5]) > 1_000, (
        "the function beside it is looked at as closely as without it"
    )
    assert sum(m.line > 5 for m in found) < 20, "a table is changed as a whole, not entry by entry"
    tracemalloc.start()
    assert search() == found
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50_000_000


def test_a_short_table_is_changed_entry_by_entry() -> None:
    code = with_table(3)
    found = mutants({"a.py": code}, surroundings({"a.py": code}, {("a.py", 3): 1.0}))
    assert "'k1': (2, 'v1')," in {m.new.strip() for m in found}


def test_a_long_function_is_looked_at_to_its_end() -> None:
    body = "".join(f"    v{n} = v{n - 1} + a[{n}] if v{n - 1} < a else len(a)\n" for n in range(1, 30))
    code = f"def f(a):\n    v0 = a\n{body}    return v3\n"
    found = mutants({"a.py": code}, {("a.py", n): 1.0 for n in range(2, 33)})
    assert {m.line for m in found} >= set(range(2, 33))
    assert len(found) < MOST + 4_000


def test_texts_as_long_as_the_file_are_not_kept() -> None:
    code = "def f(a):\n    T = [" + ", ".join(str(n) for n in range(20_000)) + "]\n    return T[a]\n"
    found = mutants({"a.py": code}, {("a.py", 2): 1.0, ("a.py", 3): 1.0})
    assert found
    assert all(max(len(m.old), len(m.new)) <= LONGEST_EDIT for m in found)


def test_the_search_ends_soon_after_it_is_told_to() -> None:
    code = "\n".join(SEARCH.replace("search", f"search{n}") for n in range(100))
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        mutants({"a.py": code}, {("a.py", n): 1.0 for n in range(1, 800)}, stop=stop)
    assert 0.2 < time.monotonic() - began < 1.3


def test_python_s_remarks_on_mutants_stay_out_of_sight() -> None:
    code = "def f(a):\n    return 1 if a else 0\n"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert meaning("return 1if a else 0") is not None
        assert said, "this is what Python remarks on"
        said.clear()
        hush()
        assert meaning("return 1if a else 0") is not None
        mutants({"a.py": code.replace("1 if", "1if")}, {("a.py", 2): 1.0})
        assert not said
        compile("1if a else 0", "another.py", "eval")
        assert said, "what is said of other code is heard"
