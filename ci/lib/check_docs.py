"""Holds what is written about a tree to the tree. The manual is the top of ci/check_docs.sh.

usage: check_docs.py ROOT [RULE...]
"""

import fnmatch
import itertools
import os
import re
import subprocess
import sys

ROOMS = ("ci", "corpus", "fuzz", "lib", "proptest", "reference")
TEXT = (".h", ".cc", ".inc", ".S", ".sh", ".py", ".md", ".txt", ".trace", ".patch", ".cmake", ".in", ".yml", ".yaml", ".json",
        "CMakeLists.txt", "Dockerfile", ".ignorelist", ".ci/run")
COMMENT = re.compile(r"(?://|#)(.*)")

NUMBER = r"\d+(?:\.\d+)?"
CITATION = re.compile(rf"\bSPEC,? (?:sections? )?({NUMBER}(?:(?:, (?:and )?| and | to |-|–){NUMBER})*)(?:,? steps? (\d+)(?:(?: and | to |-|–)(\d+))?)?")
SECTION = re.compile(r"\bsections? (\d+)(?:(?: and | to |-|–)(\d+))?")
ROW = re.compile(r"\bD(\d{1,2})\b(?!\()")


class Tree:
    """The files that are ours, and what reference/SPEC.md defines."""

    def __init__(self, root):
        self.root = root
        self.files = sorted(self._list())
        self.folders = {"/".join(f.split("/")[:n]) for f in self.files for n in range(1, f.count("/") + 1)}
        self.names = {os.path.basename(f) for f in self.files}
        self.offences = 0
        self._said = set()
        self._lines = {}

    def _list(self):
        if os.path.exists(os.path.join(self.root, ".git")):
            out = subprocess.run(["git", "-C", self.root, "ls-files", "-co", "--exclude-standard"],
                                 check=True, capture_output=True, text=True).stdout
            return [f for f in out.splitlines() if os.path.exists(os.path.join(self.root, f))]
        found = []
        for folder, below, names in os.walk(self.root):
            below[:] = [b for b in below if b not in ("build", "__pycache__")]
            found += [os.path.relpath(os.path.join(folder, n), self.root) for n in names]
        return found

    def exists(self, path):
        path = path.rstrip("/")
        if re.search(r"[*?\[]", path):
            return any(fnmatch.fnmatch(f, path) for f in (*self.files, *self.folders))
        return path in self.folders or path in self.files

    def texts(self, *suffixes):
        """(path, number, line) of all text files, or of those with the given suffixes."""
        for path in self.files:
            if not path.endswith(suffixes or TEXT) or path.startswith("ci/lib/check_docs"):
                continue  # this check and its test are full of what it refuses
            if path not in self._lines:
                with open(os.path.join(self.root, path), encoding="utf-8", errors="replace") as file:
                    self._lines[path] = file.read().splitlines()
            for number, line in enumerate(self._lines[path], 1):
                yield path, number, line

    def offend(self, path, number, what):
        said = f"{path}:{number}: {what}"
        if said not in self._said:
            print(said)
            self._said.add(said)
            self.offences += 1


def spec(tree):
    """Sections, steps as (section, step), and rows of the table of differences."""
    sections, steps, rows = set(), set(), set()
    section = None
    for _, _, line in tree.texts("reference/SPEC.md"):
        if match := re.match(r"## (\d+)\. ", line):
            section = int(match[1])
            sections.add(section)
        elif match := re.match(r"(\d+)\. ", line):
            steps.add((section, int(match[1])))
        elif match := re.match(r"\| D(\d+) \|", line):
            rows.add(int(match[1]))
    return sections, steps, rows


def cited(line):
    """(section, step or None) for each section that the line cites; a range cites its ends and all between."""
    for match in CITATION.finditer(line):
        last = None
        for joint, number in re.findall(rf"(^|, (?:and )?| and | to |-|–)({NUMBER})", match[1]):
            section, _, step = number.partition(".")
            if joint.strip() in ("to", "-", "–") and not step:
                for between in range(last + 1, int(section)):
                    yield between, None
            last = int(section)
            yield last, int(step) if step else None
        for step in range(int(match[2] or 1), int(match[3] or match[2] or 0) + 1):
            yield last, step
    yield from ((int(s), None) for match in SECTION.finditer(line) for s in match.groups() if s)


def check_citations(tree):
    sections, steps, rows = spec(tree)
    if not sections:
        tree.offend("reference/SPEC.md", 1, "no sections ('## 1. Title')")
    for path, number, line in tree.texts():
        seed = path.startswith("corpus/seeds/")
        if "SPEC" in line or seed or path == "reference/SPEC.md":
            for section, step in cited(line):
                if section not in sections:
                    tree.offend(path, number, f"SPEC has no section {section}")
                elif step is not None and (section, step) not in steps:
                    tree.offend(path, number, f"SPEC {section} has no step {step}")
        if path.endswith((".trace", ".cc", ".h", ".patch", ".md")):
            comment = line if path.endswith(".md") else (COMMENT.search(line) or [None, ""])[1]
            for row in ROW.findall(comment):
                if int(row) not in rows:
                    tree.offend(path, number, f"SPEC's table of differences has no D{row}")
    for path in tree.files:
        if match := re.match(r"corpus/seeds/(?:\w+/)?([sd])(\d+)_", path):
            if int(match[2]) not in (sections if match[1] == "s" else rows):
                tree.offend(path, 1, f"its name cites {match[1].upper()}{match[2]}, which SPEC does not have")


def slug(heading):
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def code_spans(tree):
    """(path, number, text) for each backticked span and each line of a code block of the *.md files."""
    fenced = {}
    for path, number, line in tree.texts(".md"):
        if line.startswith("```"):
            fenced[path] = not fenced.get(path)
        elif fenced.get(path) or (line.startswith("    ") and not line.lstrip().startswith(("-", "*", "|"))):
            yield path, number, line.strip()
        else:
            yield from ((path, number, span) for span in re.findall(r"`([^`]+)`", line))


def next_lines(tree):
    """Lines of ARCHITECTURE.md about what isn't there yet."""
    below = None
    for path, number, line in tree.texts("ARCHITECTURE.md"):
        if line.startswith("## "):
            below = line[3:].strip() == "Next" or "(next)" in line
        if below or "(next)" in line:
            yield path, number


def check_links(tree):
    headings = {}
    for path, _, line in tree.texts(".md"):
        if match := re.match(r"#+ (.*)", line):
            headings.setdefault(path, set()).add(slug(match[1]))
    for path, number, line in tree.texts(".md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if "://" in target:
                continue
            file, _, anchor = target.partition("#")
            there = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
            if not tree.exists(there):
                tree.offend(path, number, f"the link to {target}: no such file")
            elif anchor and anchor not in headings.get(there, ()):
                tree.offend(path, number, f"the link to {target}: no such heading")
    later = set(next_lines(tree))
    for path, number, span in code_spans(tree):
        include = re.match(r"#include [<\"](guestmem/[^>\"]+)", span)
        name = include[1] if include else re.sub(r"<\w+>", "*", span)
        if re.fullmatch(r"guestmem/[\w./]+\.h", name):
            name = ("fuzz/hostile/include/" if name.startswith("guestmem/hostile/") else "lib/include/") + name
        if re.fullmatch(r"(?:(?:%s)|\.\w+)/[\w.*/-]*" % "|".join(ROOMS), name):
            if (path, number) not in later and not tree.exists(name) and not tree.exists(name + ".cc"):
                tree.offend(path, number, f"`{span}`: no such file or folder")
        elif re.fullmatch(r"[\w.]+\.(?:h|cc|py|sh|md|inc)", name) and name not in tree.names:
            tree.offend(path, number, f"`{span}`: no file of that name")
    for path, number, line in tree.texts():
        for name in re.findall(r"\b[A-Z]{3,}\.md\b", line):
            if name not in tree.names:
                tree.offend(path, number, f"mentions {name}, which does not exist")


def script_texts(tree, script):
    """The script, and the Python files that it starts: where an option must be known."""
    seen, todo = {}, [script]
    while todo:
        path = todo.pop()
        if path in seen or path not in tree.files:
            continue
        with open(os.path.join(tree.root, path), encoding="utf-8") as file:
            seen[path] = file.read()
        todo += re.findall(r"ci/(?:lib/)?\w+\.py", seen[path])
        todo += [f"ci/lib/{m}.py" for m in re.findall(r"^(?:import|from) (\w+)", seen[path], re.M)]
    return "\n".join(seen.values())


def check_commands(tree):
    for path, number, line in tree.texts():
        if path.endswith(".patch"):
            continue  # its context is another file's text
        for name in re.findall(r"(?<![\w./-])(?:\./)?(ci/[A-Za-z0-9_./*-]*[A-Za-z0-9_*])", line):
            if not tree.exists(name) and not re.search(r"ci/(?:\w+/)*[A-Z]+\b", name):
                tree.offend(path, number, f"{name}: no such file or folder")
    for path, number, span in code_spans(tree):
        for script, rest in re.findall(r"((?:ci/[\w-]+\.sh)|\.ci/run)([^`;|#]*)", span):
            text = script_texts(tree, script)
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest.split(" -- ")[0]):
                if text and not re.search(re.escape(option) + r"(?![a-z-])", text):
                    tree.offend(path, number, f"{script} does not know {option}")
        for tool, command in re.findall(r"build/\w+/fuzz/(\w+)(?: ([a-z]+)\b)?", span):
            source = next((f for f in (f"fuzz/{tool}_tool.cc", f"fuzz/{tool}.cc") if f in tree.files), None)
            if source is None:
                tree.offend(path, number, f"`{span}`: fuzz/ has no {tool}")
            elif command:
                with open(os.path.join(tree.root, source), encoding="utf-8") as file:
                    if f'"{command}"' not in file.read():
                        tree.offend(path, number, f"`{span}`: {source} does not know {command}")
    callers = {}
    for path, _, line in tree.texts("README.md", "CMakeLists.txt", ".sh", ".py", ".ci/run"):
        for script in re.findall(r"ci/\w[\w-]*\.sh", line):
            callers.setdefault(script, set()).add(path)
    for script in tree.files:
        if not re.fullmatch(r"ci/[^/]+\.sh", script) or not os.access(os.path.join(tree.root, script), os.X_OK):
            continue  # not executable: sourced by the others
        if not callers.get(script, set()) - {script}:
            tree.offend(script, 1, "the README does not name it, and nothing runs it")
        help_text = subprocess.run([os.path.join(tree.root, script), "--help"], capture_output=True, text=True, timeout=60)
        if help_text.returncode != 0 or not help_text.stdout.startswith(f"usage: {script}"):
            tree.offend(script, 1, "--help does not print its manual")


def check_tree(tree):
    drawn, room, fenced = {}, None, False
    later = set(next_lines(tree))
    in_rooms = False
    for path, number, line in tree.texts("ARCHITECTURE.md"):
        if line.startswith("## "):
            in_rooms = line[3:].strip() == "The rooms"
        fenced ^= line.startswith("```")
        if in_rooms and fenced and (match := re.match(r"( *)((?:[\w./-]+/ +)+)", line + " ")):
            names = [n.rstrip("/") for n in match[2].split()]
            if not match[1]:
                room = names[0]
            for name in names:
                folder = name if not match[1] else f"{room}/{name}"
                drawn[folder] = number
                if (path, number) in later:
                    if folder in tree.folders:
                        tree.offend(path, number, f"{folder}/ is there, and is marked as next")
                elif folder not in tree.folders:
                    tree.offend(path, number, f"{folder}/ is drawn, and is not there")
    if {d for d in drawn if "/" not in d} != set(ROOMS):
        tree.offend("ARCHITECTURE.md", 1, f"draws the rooms {sorted(d for d in drawn if '/' not in d)}, and not {list(ROOMS)}")
    for folder in sorted(tree.folders):
        parts = folder.split("/")
        if parts[0] not in ROOMS or parts[0] == "corpus" and folder != "corpus/seeds" or folder == "lib/src":
            continue
        if (len(parts) == 2 or len(parts) == 3 and folder.startswith("lib/src/")) and folder not in drawn:
            tree.offend("ARCHITECTURE.md", 1, f"does not draw {folder}/")
    pictures = {}
    for name in ("ARCHITECTURE.md", "README.md"):
        text = "\n".join(line for _, _, line in tree.texts(name))
        pictures[name] = [block for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S) if "Lockstep" in block]
    if pictures["ARCHITECTURE.md"] != pictures["README.md"]:
        tree.offend("README.md", 1, "its picture of the flow is not ARCHITECTURE.md's")
    below = False
    for path, number, line in tree.texts("ARCHITECTURE.md"):  # the list of what is next
        if line.startswith("## "):
            below = line[3:].strip() == "Next"
        for name in re.findall(r"`([\w./-]+/[\w./-]*)`", line) if below and line.startswith("|") else ():
            if tree.exists(name):
                tree.offend(path, number, f"{name} is there, and is listed as next")
    rows = {}
    for path, number, line in tree.texts("README.md"):
        if match := re.match(r"\| `(\w+)/` \|(.*)", line):
            rows[match[1]] = number
            for inner in re.findall(r"`([\w<>-]+)/`", match[2]):
                where = f"{match[1]}/{re.sub('<.*>', '*', inner)}"
                if inner not in ROOMS and not tree.exists(where) and not tree.exists(where.replace("/", "/src/", 1)):
                    tree.offend(path, number, f"{match[1]}/{inner}/: no such folder")
    if set(rows) != set(ROOMS):
        tree.offend("README.md", 1, f"its table of rooms has {sorted(rows)}, and not {list(ROOMS)}")


def confusable(one, other):
    """Whether two names differ by a letter at most, hyphens and spellings with z aside."""
    a, b = sorted((re.sub("[-_]", "", name.lower()).replace("z", "s") for name in (one, other)), key=len)
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), len(a))
    return len(b) - len(a) <= 1 and (a[at:] == b[at + 1:] or a[at + 1:] == b[at + 1:])


def check_names(tree):
    """What a person types: the scripts of ci/, the programs of fuzz/. One name, one thing."""
    typed = {}
    for path in tree.files:
        if match := re.fullmatch(r"(?:ci/(?:lib/)?|fuzz/)([\w-]+)\.(?:sh|py|cc)", path):
            typed.setdefault(re.sub(r"_(?:tool|main|test)$", "", match[1]), path)
    for (one, path), (other, there) in itertools.combinations(sorted(typed.items()), 2):
        if confusable(one, other):
            tree.offend(path, 1, f"its name is too close to that of {there}")
    for folder in sorted(tree.folders):
        if match := re.fullmatch(r"ci/([\w-]+)", folder):
            for name, path in typed.items():
                if name != match[1] and confusable(name, match[1]):
                    tree.offend(path, 1, f"its name is too close to that of {folder}/")


RIDDLES = re.compile(r"\b(?:one's own|vanish\w*|(?:broke|keeps?) its word|the news|what gets|tells of)\b", re.I)


def check_words(tree):
    """A reader's first pages, for turns of phrase that had to be read twice."""
    for path, number, line in tree.texts("README.md", "ARCHITECTURE.md", ".h"):
        if (path.endswith(".md") or path.startswith("lib/include/")) and (found := RIDDLES.search(line)):
            tree.offend(path, number, f"'{found[0]}': say who does what")


RULES = {"citations": check_citations, "links": check_links, "commands": check_commands, "tree": check_tree, "names": check_names, "words": check_words}


def main(arguments):
    if not arguments or any(rule not in RULES for rule in arguments[1:]):
        print(f"check_docs: unknown rule in {arguments[1:]}; known: {' '.join(RULES)}", file=sys.stderr)
        return 2
    tree = Tree(arguments[0])
    for rule in arguments[1:] or RULES:
        before = tree.offences
        RULES[rule](tree)
        print(f"{rule:10} {'ok' if tree.offences == before else str(tree.offences - before) + ' offences'}")
    return tree.offences != 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
