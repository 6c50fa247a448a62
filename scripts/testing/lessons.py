"""Holds docs/lessons.md against docs/reference/lessons.md and the tests: every lesson and every wish has a row, and every test
that a row names is in the tree. A test is named as `File` "name of the test". Prints each breach; status 1 if there is one."""

import glob
import os
import re
import sys

LIST, TABLE = "docs/reference/lessons.md", "docs/lessons.md"
breaches = []


def numbers_of_list():
    """The numbers of the lessons and of the wishes in the list of both."""
    with open(LIST, encoding="utf-8") as file:
        lessons, wishes = file.read().split("## What their users still ask for")
    number = re.compile(r"^(\d+)\. ", re.M)
    return [int(n) for n in number.findall(lessons)], [int(n) for n in number.findall(wishes)]


def tests_of_tree():
    """File name without ending -> the names of its tests."""
    tests = {}
    for path in glob.glob("Tests/**/*.swift", recursive=True):
        with open(path, encoding="utf-8") as file:
            source = file.read()
        names = re.findall(r'@Test\(\s*"((?:[^"\\]|\\.)*)"', source)
        # A long name may be put together from pieces; escapes stand as in the source.
        names = {re.sub(r'\\(["\\])', r"\1", name) for name in names}
        tests.setdefault(os.path.basename(path)[: -len(".swift")], set()).update(names)
    for path in glob.glob("Catalog/testing/*.py"):
        with open(path, encoding="utf-8") as file:
            tests[os.path.basename(path)] = set(re.findall(r"def (test_\w+)", file.read()))
    return tests


def main():
    with open(TABLE, encoding="utf-8") as file:
        lines = file.read().splitlines()
    lessons, wishes = numbers_of_list()
    found = {"": [], "W": []}
    tests = tests_of_tree()
    for number, line in enumerate(lines, 1):
        row = re.match(r"\| (W?)(\d+) \|", line)
        if not row:
            continue
        found[row.group(1)].append(int(row.group(2)))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or not all(cells):
            breaches.append(f"{TABLE}:{number}: not four cells with something in each")
            continue
        named = re.findall(r'`(\w[\w.]*)` "([^"]*)"', cells[3])
        if not named and "comes with" not in cells[3] and "cannot happen" not in cells[3]:
            breaches.append(f"{TABLE}:{number}: names no test, and does not say with what it comes or why it cannot happen")
        for file, name in named:
            # Quotation marks of a test's own name are left out in the table.
            if name not in {known.replace('"', "") for known in tests.get(file, set())}:
                breaches.append(f"{TABLE}:{number}: there is no test \"{name}\" in {file}")
    for kind, wanted in (("", lessons), ("W", wishes)):
        if found[kind] != wanted:
            missing = sorted(set(wanted) - set(found[kind]))
            breaches.append(f"{TABLE}: rows {kind or 'of lessons'} are not those of {LIST}, once each and in order; missing: {missing}")
    for breach in breaches:
        print(breach)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
