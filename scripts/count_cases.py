#!/usr/bin/env python3
"""Prints "PASSED FAILED SKIPPED": the test cases behind a JUnit file written by ctest.

Each of our test executables ends with a line `cases: N passed, N failed, N skipped`. An entry
without that line is one case; an entry that failed although no case did (a crash, a time limit, a
sanitizer's report) is one failed case more.
"""

import re
import sys
import xml.etree.ElementTree

CASES = re.compile(r"^cases: (\d+) passed, (\d+) failed, (\d+) skipped$", re.M)


def count(entry):
    ok = entry.get("status") == "run"
    found = CASES.findall(entry.findtext("system-out") or "")
    if not found:
        return (1, 0, 0) if ok else (0, 1, 0)
    passed, failed, skipped = (int(n) for n in found[-1])
    return passed, failed or int(not ok), skipped


def main():
    entries = xml.etree.ElementTree.parse(sys.argv[1]).getroot().iter("testcase")
    counts = [count(entry) for entry in entries]
    print(*(sum(column) for column in zip(*counts)))


if __name__ == "__main__":
    main()
