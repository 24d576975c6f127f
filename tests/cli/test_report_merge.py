"""`fourtuple report merge` from end to end, on files made up for it."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.cli.dial_json import report_text
from fourtuple.cli.dial_text import lines
from fourtuple.cli.html.dial import dial_page
from fourtuple.cli.main import main
from fourtuple.cli.terminal import length, open_terminal, text_of
from fourtuple.dial.merge import merge
from fourtuple.dial.report import DialReport
from fourtuple.dial.report_json import ReportError
from tests.cli.golden import check_golden
from tests.cli.htmlpage import read_page
from tests.cli.schema import check, load
from tests.dial.reports import all_failed, all_well, some_failed


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with three reports, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for name, report in (("well", all_well()), ("some", some_failed()), ("none", all_failed())):
        Path(f"{name}.json").write_text(report_text(report))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    try:
        code = main(["report", *words])
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *words: str, exit_code: int = 2) -> str:
    """The one line that it complains in."""
    code, out, err = run(capsys, *words)
    assert (code, out) == (exit_code, "")
    return err.splitlines()[0]


def document(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    check(load("dial-1"), found)
    return found


@pytest.mark.parametrize("made", [all_well, some_failed, all_failed, DialReport])
def test_every_report_is_what_the_schema_says(made: Any) -> None:
    document(report_text(made()))


def test_a_row_of_numbers_is_one_line_of_the_document() -> None:
    report = all_well()
    report.host = "[\n 1,\n 2 ]"
    text = report_text(report)
    assert json.loads(text) == report.to_json()
    assert "\n    [0.0, 0, 0, 0, 0],\n" in text
    assert report_text(report, ascii_only=True).isascii()


def test_the_merged_text_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "merge", "well.json", "some.json")
    assert (code, err) == (10, "")
    assert "218 300 open, the peaks of all added up" in out
    assert "1 200 ECONNREFUSED" in out


def test_json_is_the_merged_document_and_its_exit_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for names in (["well"], ["well", "some"], ["none"]):
        code, out, err = run(capsys, "merge", "--json", *(f"{name}.json" for name in names))
        found = document(out)
        assert (code, err) == (found["exit"], "")
    assert code == 20
    assert found["workers"][0]["name"] == "web-17"


def test_o_writes_the_document_and_it_can_be_merged_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "merge", "well.json", "some.json", "-o", "two.json")[0] == 10
    both = document(Path("two.json").read_text())
    assert [one["name"] for one in both["workers"]] == ["web-17 (some.json)", "web-17 (well.json)"]
    assert both | {"workers": []} == merge([all_well(), some_failed()]).to_json() | {"workers": []}
    Path("third.json").write_text(report_text(all_well(1_000, "web-19")))
    code, out, _ = run(capsys, "merge", "two.json", "third.json", "--json")
    assert code == 10
    assert document(out)["connections"]["established"] == 200_000 + 18_500 + 1_000
    assert len(document(out)["workers"]) == 3


def test_a_report_may_come_from_stdin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(report_text(all_well()).encode())))
    assert run(capsys, "merge", "-", "--json")[0] == 0


def test_a_page_is_written_beside_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "merge", "well.json", "--html", "page.html")
    assert (code, err) == (0, "")
    assert "200 000 open" in out
    assert Path("page.html").read_text().startswith("<!doctype html>")


def test_the_help_is_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    check_golden("report-help.txt", out)


# What is wrong with a file

EXTREMES = [0, 1, -1, 2**53, 2**63 - 1, 2**64, 1e-300, -1e18, 1e18, 1e300, True, None, "", "x" * 300, [], {}, [[]]]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(one for key, item in items for one in leaves(item, (*path, key)))]


PATHS = leaves(some_failed().to_json())[1:]


@given(st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(EXTREMES)), min_size=1, max_size=4))
def test_a_spoilt_report_is_refused_or_shown_but_never_a_bug(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    data = some_failed().to_json()
    for path, value in changes:
        inner = data
        with suppress(KeyError, IndexError, TypeError):  # an earlier change took the place away
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
    try:
        report = DialReport.from_json(data)
    except ReportError as error:
        assert "\n" not in str(error)
        return
    merged = merge([report, report])
    assert all(
        length(line) <= 200 or "x" * 300 in text_of(line) for line in lines(merged, open_terminal(io.StringIO()))
    )
    assert read_page(dial_page(merged))
    assert json.loads(report_text(merged))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad.json: empty"),
        (b" \n", "bad.json: empty"),
        (b"no json", "bad.json: no JSON from line 1 on (Expecting value)"),
        (b'{"schema": "fourtuple.dial/1",\n', "bad.json: no JSON from line 2 on (Expecting property name enclosed in"),
        (b"\xff\xfe\x00", "bad.json: no JSON that a report is made of"),
        (b"[" * 100_000, "bad.json: no JSON that a report is made of"),
        (b'{"schema": ' + b"9" * 10_000 + b"}", "bad.json: no JSON that a report is made of"),
        (b"[]", "bad.json: no report of fourtuple: it has no schema"),
        (b'{"schema": "fourtuple.doctor/1"}', "bad.json: not a report of dial: its schema is 'fourtuple.doctor/1'"),
        (b'{"schema": "fourtuple.dial/3"}', "bad.json: fourtuple.dial/3 is newer than this fourtuple, which reads"),
        (b'{"schema": "fourtuple.dial/1", "connections": {"begun": NaN}}', "bad.json: connections.begun is nan, not a"),
        (b'{"schema": "fourtuple.dial/1", "wire": 5}', "bad.json: wire is 5, not a text"),
    ],
)
def test_a_file_that_is_no_report_is_one_line(capsys: pytest.CaptureFixture[str], content: bytes, message: str) -> None:
    Path("bad.json").write_bytes(content)
    assert refused(capsys, "merge", "well.json", "bad.json").startswith(f"fourtuple: {message}")


def test_a_file_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "merge", "no.json") == "fourtuple: no.json: cannot read it: No such file or directory"
    assert refused(capsys, "merge", ".") == "fourtuple: .: cannot read it: Is a directory"


def test_nothing_is_written_when_a_file_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("all.json").write_text("mine")
    refused(capsys, "merge", "well.json", "no.json", "-o", "all.json", "--html", "all.html")
    assert Path("all.json").read_text() == "mine"
    assert not Path("all.html").exists()


def test_a_file_without_an_end_is_not_read_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "merge", "/dev/zero") == "fourtuple: /dev/zero: no report: larger than 64 MiB"


def test_a_report_counts_once_under_whatever_name(capsys: pytest.CaptureFixture[str]) -> None:
    os.symlink("well.json", "link.json")
    for name in ("well.json", "./well.json", "link.json"):
        said = refused(capsys, "merge", "well.json", name)
        assert said == f"fourtuple: {name} is given twice; each report counts once"
    assert "- is given twice" in refused(capsys, "merge", "-", "-")


def test_a_report_that_is_read_is_not_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("well.json").read_text()
    for option in ("-o", "--html"):
        said = refused(capsys, "merge", "well.json", option, "well.json")
        assert said == f"fourtuple: {option}: well.json is one of the reports that are read; give it another name"
    assert Path("well.json").read_text() == before


def test_outputs_that_cannot_be_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "-o: stdout has the text" in refused(capsys, "merge", "well.json", "-o", "-")
    assert "--html: a page goes to a file" in refused(capsys, "merge", "well.json", "--html", "-")
    assert "-o and --html both write x" in refused(capsys, "merge", "well.json", "-o", "x", "--html", "x")
    assert "-o: cannot write no/x: No such file" in refused(capsys, "merge", "well.json", "-o", "no/x", exit_code=29)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mrege", "well.json"], "fourtuple report: merge: nothing is called 'mrege'. Did you mean 'merge'?"),
        (["well.json"], "fourtuple report: merge: nothing is called 'well.json'. There are: merge."),
        ([], "fourtuple report: the following arguments are required: merge, FILE"),
        (["merge"], "fourtuple report: the following arguments are required: FILE"),
        (["merge", "well.json", "--jsn"], "fourtuple report: no option '--jsn'. Did you mean '--json'?"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert refused(capsys, *words) == message
