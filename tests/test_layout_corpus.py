"""Sets made from forty layouts: the audit passes every clean one and finds every planted wrong; the check
lets every layout in."""

import json

import layout_corpus as corpus
import pytest

from genaug import audit
from genaug.cli import run
from genaug.data.sources import examine_source, formats
from genaug.messages import GenaugError
from genaug.plan_file import read_plan
from genaug.set_report import photographs_of
from genaug.synthetic_set import open_synthetic

SAMPLE = ("prefixes in parts", "unequal", "table", "deep sub-folders")
EXPECTED = {
    "one picture in a class": {"single-image"},
    "one picture each": {"single-image"},
    "class without test": {"untested-class"},
    "names of parts as classes": {"split-name"},
    "link inside": {"duplicate"},
    "junk": {"stray", "other-file"},
}


def examine(made):
    "What `genaug audit OUT` says: findings, with one error where a part cannot even be opened."
    try:
        plan, images = read_plan(made.out), open_synthetic(made.out)
        note = json.loads((made.out / ".genaug" / "run.json").read_text(encoding="utf-8"))
        report = examine_source(note["source"], formats=formats())
        report.raise_first()
        real, why = photographs_of(made.out, plan.header["sources"], note)
        if real is None:
            raise GenaugError(why)
        return audit.as_findings(
            audit.audit(
                images,
                real,
                report.sets.get("test"),
                header=plan.header,
                rows=plan.rows,
                folder=made.out / "train",
            )
        )
    except GenaugError as error:
        return (audit.Finding("refused", "error", "", str(error)),)


@pytest.fixture(scope="module")
def made_of(tmp_path_factory):
    "Layout name -> the set made of it, made once."
    known = {}

    def make(name):
        if name not in known:
            known[name] = corpus.make(name, tmp_path_factory.mktemp("layout"), run)
        return known[name]

    return make


def layouts():
    return [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.long) for name in corpus.LAYOUTS]


def test_there_are_forty_layouts_and_ten_kinds_of_wrongs():
    assert len(corpus.LAYOUTS) == 40
    assert len(corpus.WRONGS) >= 10


@pytest.mark.parametrize("name", corpus.LAYOUTS)
def test_the_check_lets_every_layout_in_and_says_only_what_is_to_be_said(name, tmp_path):
    _, source = corpus.build(name, tmp_path)
    report = examine_source(source, formats=formats())
    assert report.errors == ()
    assert {finding.kind for finding in report.findings if finding.severity == "warning"} == EXPECTED.get(
        name, set()
    )


@pytest.mark.parametrize("name", layouts())
def test_a_clean_set_passes(name, made_of):
    assert [finding.message for finding in examine(made_of(name)) if finding.severity == "error"] == []


@pytest.mark.parametrize("wrong", corpus.WRONGS, ids=lambda wrong: wrong.__name__)
@pytest.mark.parametrize("name", layouts())
def test_a_planted_wrong_is_found(name, wrong, made_of, tmp_path):
    spoiled = corpus.copy(made_of(name), tmp_path)
    wrong(spoiled)
    assert [finding.kind for finding in examine(spoiled) if finding.severity == "error"]


@pytest.mark.parametrize("name", layouts())
def test_a_moved_set_is_still_clean(name, made_of, tmp_path):
    assert [
        finding.message
        for finding in examine(corpus.copy(made_of(name), tmp_path))
        if finding.severity == "error"
    ] == []
