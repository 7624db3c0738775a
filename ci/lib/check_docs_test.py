#!/usr/bin/env python3
"""Each kind of disagreement that check_docs.py is for, planted in a small tree that is otherwise in order."""

import contextlib
import io
import os
import pathlib
import tempfile
import unittest

import check_docs

SCRIPT = """#!/usr/bin/env bash
# usage: ci/go.sh [--fast]
awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
"""
FILES = {
    "README.md": """# x
Read [the plan](ARCHITECTURE.md#the-rooms) and [the contract](reference/SPEC.md).
| room | what |
|---|---|
| `lib/` | `trap/`; header `guestmem/a.h` |
| `reference/` | `model/` |
| `fuzz/` | - |
| `proptest/` | - |
| `corpus/` | `seeds/` |
| `ci/` | - |

    ci/go.sh --fast FILE
    build/default/fuzz/trace show FILE
""",
    "ARCHITECTURE.md": """# x
## The rooms
```
lib/         a
  include/     b
  src/trap/    c
reference/   d
  model/       e
  later/       f (next)
fuzz/        g
proptest/    h
corpus/      i
  seeds/       j
ci/          k
```
## Next
| what | where |
|---|---|
| f | `reference/later/` |
""",
    "reference/SPEC.md": """# x
## 1. One
See section 2.
## 2. Two
1. first
2. second
## 3. Three
| D1 | a |
""",
    "reference/model/a.cc": "// SPEC 1 and 2.2, and SPEC 2, steps 1 to 2; D1\n",
    "lib/include/guestmem/a.h": "// SPEC 1 to 3\n",
    "lib/src/trap/a.cc": "// ci/go.sh\n",
    "fuzz/trace_tool.cc": 'if (word == "show") {}\n',
    "proptest/a.cc": "",
    "corpus/seeds/s2_a.trace": "# SPEC 2: as section 1 says (D1).\n",
    "corpus/seeds/d1_a.trace": "",
    "ci/go.sh": SCRIPT,
}


class CheckDocs(unittest.TestCase):
    def check(self, rule, changes):
        """What the rule says of the tree with these changes: (status, output). A change is (path, text to add, or text to replace, by what)."""
        with tempfile.TemporaryDirectory() as root:
            files = dict(FILES)
            for path, *change in changes:
                if len(change) == 2:
                    self.assertIn(change[0], files[path])
                    files[path] = files[path].replace(*change)
                else:
                    files[path] = files.get(path, "") + change[0]
            for path, text in files.items():
                there = pathlib.Path(root, path)
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_text(text, encoding="utf-8")
                if path.endswith(".sh"):
                    os.chmod(there, 0o755)
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                status = check_docs.main([root, rule])
            return status, said.getvalue()

    def assert_found(self, rule, *change, says):
        status, said = self.check(rule, [change])
        self.assertEqual(status, 1, said)
        self.assertIn(says, said)
        self.assertEqual(said.count("\n"), 2, said)  # the offence and the rule's line: nothing else is wrong

    def test_tree_in_order_passes(self):
        for rule in check_docs.RULES:
            self.assertEqual(self.check(rule, [])[0], 0, self.check(rule, []))

    def test_citations(self):
        for text, says in (
                ("// SPEC 4\n", "no section 4"),
                ("// as said (SPEC 12).\n", "no section 12"),
                ("// SPEC 1 and 5\n", "no section 5"),
                ("// SPEC 2.3\n", "no step 3"),
                ("// SPEC 1.1\n", "no step 1"),
                ("// SPEC 2, step 3\n", "no step 3"),
                ("// SPEC 2, steps 2 to 3\n", "no step 3"),
                ("// SPEC 2 to 4\n", "no section 4"),
                ("// SPEC section 9\n", "no section 9"),
                ("// D2: is\n", "no D2"),
        ):
            for path in ("reference/model/a.cc", "ci/mutants/a.patch"):
                with self.subTest(text=text, path=path):
                    self.assert_found("citations", path, text, says=says)
        self.assert_found("citations", "corpus/seeds/s2_a.trace", "# as section 7 says\n", says="no section 7")
        self.assert_found("citations", "corpus/seeds/s5_b.trace", "", says="S5")
        self.assert_found("citations", "corpus/seeds/vmm/s5_b.trace", "", says="S5")
        self.assert_found("citations", "corpus/seeds/d3_b.trace", "", says="D3")
        self.assert_found("citations", "reference/SPEC.md", "as sections 2 and 8 say\n", says="no section 8")

    def test_links(self):
        self.assert_found("links", "README.md", "[a](lib/gone.md)\n", says="no such file")
        self.assert_found("links", "README.md", "[a](ARCHITECTURE.md#gone)\n", says="no such heading")
        self.assert_found("links", "README.md", "`guestmem/gone.h`\n", says="no such file")
        self.assert_found("links", "README.md", "`gone.h`\n", says="no file of that name")
        self.assert_found("links", "README.md", "`fuzz/gone.cc`\n", says="no such file")
        self.assert_found("links", "README.md", "```\n#include <guestmem/gone.h>\n```\n", says="no such file")
        self.assert_found("links", "ARCHITECTURE.md", "## More\n`reference/later/`\n", says="no such file")
        self.assert_found("links", "lib/src/trap/a.cc", "// as in DESIGN.md\n", says="DESIGN.md")

    def test_commands(self):
        self.assert_found("commands", "README.md", "`ci/gone.sh`\n", says="no such file")
        self.assert_found("commands", "lib/src/trap/a.cc", "// ci/lib/gone.py\n", says="no such file")
        self.assert_found("commands", "README.md", "`ci/go.sh --slow`\n", says="does not know --slow")
        self.assert_found("commands", "README.md", "`ci/go.sh --fa`\n", says="does not know --fa")
        self.assert_found("commands", "README.md", "\n    build/fuzz/fuzz/gone FILE\n", says="fuzz/ has no gone")
        self.assert_found("commands", "README.md", "\n    build/fuzz/fuzz/trace hide FILE\n", says="does not know hide")
        self.assert_found("commands", "ci/other.sh", SCRIPT.replace("ci/go.sh", "ci/other.sh"), says="nothing runs it")
        self.assert_found("commands", "ci/go.sh", "# usage: ci/go.sh", "# use it", says="does not print its manual")

    def test_tree(self):
        self.assert_found("tree", "lib/src/rcu/a.cc", "", says="does not draw lib/src/rcu/")
        self.assert_found("tree", "reference/extra/a.cc", "", says="does not draw reference/extra/")
        self.assert_found("tree", "ARCHITECTURE.md", "  model/", "  model/ gone/", says="gone/ is drawn")
        self.assert_found("tree", "ARCHITECTURE.md", "proptest/    h\n", "", says="draws the rooms")
        self.assert_found("tree", "README.md", "| `proptest/` | - |\n", "", says="table of rooms")
        self.assert_found("tree", "README.md", "`model/`", "`mode/`", says="no such folder")
        self.assert_found("tree", "README.md", "```\nTrace -> Lockstep\n```\n", says="picture")
        self.assert_found("tree", "ARCHITECTURE.md", "`reference/later/`", "`lib/src/trap/`", says="listed as next")

    def test_names(self):
        for path in ("ci/goo.sh", "ci/g-o.sh", "ci/lib/g_o.py", "fuzz/traze.cc", "fuzz/traces_tool.cc"):
            with self.subTest(path=path):
                self.assert_found("names", path, SCRIPT, says="too close to that of")
        self.assert_found("names", "ci/g_o/a.patch", "", says="too close to that of ci/g_o/")

    def test_words(self):
        self.assert_found("words", "lib/include/guestmem/a.h", "// It may vanish.\n", says="vanish")
        self.assert_found("words", "README.md", "Memory of one's own.\n", says="one's own")

    def test_what_was_next_and_came(self):
        status, said = self.check("tree", [("reference/later/a.cc", "")])
        self.assertEqual(status, 1)
        self.assertIn("marked as next", said)
        self.assertIn("listed as next", said)

    def test_unknown_rule_is_an_error(self):
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(check_docs.main([".", "everything"]), 2)


if __name__ == "__main__":
    unittest.main()
