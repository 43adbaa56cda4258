"""Findings have one form everywhere, and settings are compared with their declared types and bounds."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pytest

from genaug.files import findings_text, keep_findings, read_findings
from genaug.messages import Finding, GenaugError, finding_lines, printable, sorted_findings
from genaug.settings import Bound, check_settings, declared

ERROR = Finding("leak", "error", "a.png", "'a.png' is in two parts: remove one.")
NOTE = Finding("grey", "note", "b.png", "'b.png' is grey.")


@dataclass
class Part:
    steps: Annotated[int, Bound(1, 10)] = 3
    rate: float = 0.1
    share: Annotated[float | None, Bound(0, 1)] = None
    strengths: Annotated[tuple[float, ...], Bound(0, 1, above=True)] = (0.5,)
    word: str | None = "the"
    flip: bool = True
    anything: object = None
    made: int = field(default=0, init=False)


def test_a_severity_that_does_not_exist_is_refused():
    with pytest.raises(GenaugError, match="error, warning, note"):
        Finding("leak", "fatal", "", "text")


@pytest.mark.parametrize("wrong", [{}, [], None, 3])
def test_a_finding_is_made_of_texts(wrong):
    with pytest.raises(GenaugError):
        Finding("leak", "error", wrong, "text")
    with pytest.raises(GenaugError):
        Finding("leak", wrong, "", "text")


def test_errors_come_first_and_repetitions_go():
    assert sorted_findings([NOTE, ERROR, NOTE]) == (ERROR, NOTE)


def test_a_terminal_is_not_moved_by_a_name():
    hostile = dataclasses.replace(ERROR, message="'\x1b[2J\u202e\r\n': rename it.")
    assert all(line.isprintable() for line in finding_lines([hostile]))


def test_the_json_is_ascii_and_whole():
    hostile = dataclasses.replace(ERROR, where="\x1b\ud800é")
    text = findings_text([hostile], command="check")
    assert text.isascii()
    assert json.loads(text)["findings"][0]["where"] == hostile.where


def test_findings_survive_a_folder(tmp_path):
    keep_findings(tmp_path, [NOTE, ERROR])
    assert read_findings(tmp_path) == (ERROR, NOTE)
    assert read_findings(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"genaug_findings": 1}',
        '{"genaug_findings": 1, "findings": [{}]}',
        '{"genaug_findings": 1, "findings": 3}',
        "\xff",
    ],
)
def test_a_damaged_list_of_findings_is_named(tmp_path, text):
    (tmp_path / "findings.json").write_text(text, encoding="latin-1")
    with pytest.raises(GenaugError, match="damaged"):
        read_findings(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"steps": 10},
        {"rate": 1},
        {"rate": np.float32(0.5)},
        {"share": 0},
        {"share": None},
        {"strengths": (1.0, 0.2)},
        {"strengths": [1]},
        {"word": None},
        {"anything": math.nan},
    ],
)
def test_right_settings_pass(change):
    check_settings(Part(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"steps": 11},
        {"steps": 3.0},
        {"steps": True},
        {"steps": "3"},
        {"steps": None},
        {"rate": math.nan},
        {"rate": math.inf},
        {"rate": "abc"},
        {"rate": True},
        {"share": 1.1},
        {"share": -0.1},
        {"share": math.nan},
        {"strengths": 0.5},
        {"strengths": (0.0,)},
        {"strengths": ("a",)},
        {"word": 3},
        {"flip": 1},
        {"flip": "yes"},
    ],
)
def test_wrong_settings_are_refused_by_name(change):
    name = next(iter(change))
    with pytest.raises(GenaugError, match=f"'Part' cannot have {name}=.*: it must be"):
        check_settings(Part(**change))


def test_a_subclass_declares_its_own_interval_and_keeps_those_of_its_base():
    @dataclass
    class Narrow(Part):
        steps: Annotated[int, Bound(5, 6)] = 5

    assert declared(Narrow)["steps"] == (int, Bound(5, 6))
    assert declared(Narrow)["share"] == (float | None, Bound(0, 1))


def test_names_are_printable():
    assert printable("größe\t\x00") == "größe\\t\\x00"
