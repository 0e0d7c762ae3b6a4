"""docs/posix.md names the judges that `make interop` has for file systems, and no others."""

from __future__ import annotations

from scripts.interop import files, suites, xfstests
from tests.docs.pages import ROOT, tables
from tonfs.fuse.writeback import INTERVAL

PAGE = ROOT / "docs" / "posix.md"


def test_every_judge_of_the_file_system_has_its_line_with_a_result() -> None:
    judges = next(table for table in tables(PAGE) if table[0][0] == "judge")
    known = (*files.JUDGES, *suites.JUDGES, *xfstests.JUDGES)
    assert {row[0].strip("`") for row in judges[1:]} == {judge.name for judge in known}
    assert all(row[1] and row[2] for row in judges[1:])


def test_every_exclusion_says_what_a_program_sees_and_why() -> None:
    left_out = next(table for table in tables(PAGE) if table[0][0] == "left out")
    assert len(left_out) > 5
    assert all(len(row) == 3 and row[1] and row[2] for row in left_out)


def test_tests_of_xfstests_that_may_fail_are_on_the_page_with_a_reason() -> None:
    failing = next(table for table in tables(PAGE) if table[0][0] == "fails")
    told = {name.strip(" `") for row in failing[1:] for name in row[0].split(",")}
    assert told == {*xfstests.EXPECTED, *xfstests.SOMETIMES}
    assert all(row[1] for row in failing[1:])


def test_the_interval_on_the_page_is_the_one_in_the_code() -> None:
    assert f"within {2 * INTERVAL} s" in PAGE.read_text(encoding="utf-8")
