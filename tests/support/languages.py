"""The same small bug in other languages: `total` leaves the first value out, and one test on the base does not mind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Project:
    """A repository by its `files`; `source` has the bug, `old` is to become `new`. `tests`: ids that pass on the base,
    by the worst that an edit from `old` to `wrong` does. `witness`: a new test that fails on the base."""

    programs: tuple[str, ...]
    files: dict[str, str]
    source: str
    old: str
    new: str
    wrong: str
    tests: dict[str, str]
    witness: tuple[str, str]


GO = Project(
    ("go",),
    {
        "go.mod": "module example.com/total\n\ngo 1.18\n",
        "sums/total.go": "package sums\n\nfunc Total(values []int) int {\n\tsum := 0\n"
        "\tfor i := 1; i < len(values); i++ {\n\t\tsum += values[i]\n\t}\n\treturn sum\n}\n",
        "sums/total_test.go": 'package sums\n\nimport "testing"\n\nfunc TestNothing(t *testing.T) {\n'
        '\tt.Run("of nil", func(t *testing.T) {\n\t\tif Total(nil) != 0 {\n\t\t\tt.Error("not nothing")\n\t\t}\n\t})\n}\n\n'
        'func TestSkipped(t *testing.T) { t.Skip("later") }\n',
    },
    "sums/total.go",
    "i := 1",
    "i := 0",
    "i := -1",
    {"sums/total_test.go::TestNothing": "failed", "sums/total_test.go::TestNothing/of_nil": "failed"},
    (
        "sums/first_test.go",
        'package sums\n\nimport "testing"\n\nfunc TestFirstCounts(t *testing.T) {\n'
        '\tif Total([]int{1, 2}) != 3 {\n\t\tt.Error("the first is left out")\n\t}\n}\n',
    ),
)

_JAVASCRIPT = {
    "package.json": '{"name": "total", "version": "1.0.0", "scripts": {"test": "node --test"}}\n',
    "lib/total.js": "exports.total = (values) => {\n  let sum = 0;\n"
    "  for (let i = 1; i < values.length; i++) sum += values[i];\n  return sum;\n};\n",
    "test/total.test.js": "const { test, describe } = require('node:test');\nconst assert = require('node:assert');\n"
    "const { total } = require('../lib/total.js');\n\ndescribe('total', () => {\n"
    "  test('of nothing', () => assert.strictEqual(total([]), 0));\n  test('later', { skip: true }, () => {});\n});\n",
}
_WITNESS = (
    "const { test } = require('node:test');\nconst assert = require('node:assert');\n"
    "const { total } = require('../lib/total.js');\n\n"
    "test('the first counts', () => assert.strictEqual(total([1, 2]), 3));\n"
)
NODE = Project(
    ("node", "npm"),
    _JAVASCRIPT,
    "lib/total.js",
    "let i = 1",
    "let i = 0",
    "let i = -1",
    {"test/total.test.js::total::of nothing": "failed"},
    ("test/first.test.js", _WITNESS),
)
