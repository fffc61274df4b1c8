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


KINDS: dict[str, dict[str, str]] = {
    "go": {
        "go.mod": "module example.com/kinds\n\ngo 1.18\n",
        "kinds_test.go": 'package kinds\n\nimport "testing"\n\nfunc TestGood(t *testing.T) { println("heard") }\n\n'
        'func TestBad(t *testing.T) {\n\tt.Run("one two", func(t *testing.T) { t.Error("1 != 2") })\n}\n\n'
        'func TestSkipped(t *testing.T) { t.Skip("later") }\n',
        "broken/broken_test.go": 'package broken\n\nimport "testing"\n\nfunc TestNever(t *testing.T) { undefined() }\n',
        "dies/dies_test.go": 'package dies\n\nimport (\n\t"os"\n\t"testing"\n)\n\n'
        "func TestEnds(t *testing.T) { os.Exit(3) }\n",
    },
    "cargo": {
        "Cargo.toml": '[package]\nname = "kinds"\nversion = "0.1.0"\nedition = "2021"\n\n[workspace]\n',
        "src/lib.rs": "/// ```\n/// assert!(false);\n/// ```\npub fn two() -> i32 {\n    2\n}\n\n#[cfg(test)]\nmod tests {\n"
        '    #[test]\n    fn good() {\n        println!("heard");\n    }\n\n    #[test]\n    fn bad() {\n'
        '        assert_eq!(super::two(), 1, "1 != 2");\n    }\n\n    #[test]\n    #[ignore]\n    fn skipped() {}\n}\n',
        "tests/dies.rs": "#[test]\nfn ends() {\n    std::process::exit(3);\n}\n",
    },
    "node": {
        "package.json": "{}",
        "test/kinds.test.js": "const { describe, it } = require('node:test');\nconst assert = require('node:assert');\n"
        "describe('kinds', () => {\n  it('good', () => console.log('heard'));\n"
        "  it('bad', () => assert.strictEqual(1, 2));\n  it('skipped', { skip: true }, () => {});\n"
        "  it('todo', { todo: true }, () => assert.fail());\n});\n",
        "test/broken.test.js": "no JavaScript\n",
        "test/dies.test.js": "require('node:test')('ends', () => process.exit(3));\n",
    },
    **{
        name: {
            "test/kinds.test.js": f"{head}describe('kinds', () => {{\n  it('good', () => console.log('heard'));\n"
            "  it('bad', () => { throw new Error('1 != 2'); });\n  it.skip('skipped', () => {});\n});\n",
            "test/broken.test.js": "no JavaScript\n",
        }
        for name, head in (("jest", ""), ("mocha", ""), ("vitest", "import { describe, it } from 'vitest';\n"))
    },
}
"""By tool: a project whose tests pass, fail, are skipped, cannot be loaded or end the run."""
