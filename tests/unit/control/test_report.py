"""The reports that are put together of both processes' answers."""

from __future__ import annotations

from pathlib import Path

from tonfs.control import report


def problems(**front: object) -> list[tuple[str, str]]:
    said = report.status(Path("/v"), "none", dict(front), None)
    return [(problem["code"], problem["text"]) for problem in said["problems"]]


def test_files_that_lost_bytes_are_a_problem_with_names() -> None:
    assert problems(damaged={"total": 0, "paths": []}) == []
    ((code, text),) = problems(damaged={"total": 1, "paths": ["dir/a b"]})
    assert code == "TF0006"
    assert text.startswith("Bytes of a file are missing on this disk: 'dir/a b'. ")
    ((_, text),) = problems(damaged={"total": 5, "paths": ["a", "b\udcff"]})
    assert "5 files" in text
    assert "'a', 'b\\udcff', …" in text


def test_a_front_that_does_not_run_is_a_problem() -> None:
    (problem,) = report.status(Path("/v"), "none", None, None)["problems"]
    assert problem["code"] == "TF0004"
