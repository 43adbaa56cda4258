"""Filling and showing tables: nothing is run twice, sittings and processes do not matter, views keep apart
what must be kept apart."""

import dataclasses

import pandas as pd
import pytest
from test_photographs import folder_of, photographs

from genaug.comparison import Comparison
from genaug.evaluators import set_table
from genaug.paper_values import beside_table
from genaug.readings import view_of
from genaug.results import checked_row, load_rows, put, read_rows
from genaug.tables import (
    Places,
    fill_table,
    lacks_bootstrap,
    scales_shown,
    table_places,
    table_rows,
    unfinished,
)

QUESTION = Comparison(
    ("original", "mixup"),
    "digits 2-shot",
    shots=2,
    splits=(0, 1),
    repeats=(0,),
    updates=2,
    table="demo",
    scale="seconds",
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    places = table_places("demo", results=tmp_path_factory.mktemp("one") / "results")
    fill_table([QUESTION], "digits", places)
    return places


def comparable(rows):
    return [
        {key: str(value) for key, value in row.items() if key not in ("wall_s", "device", "version")}
        for row in rows
    ]


def test_sittings_in_any_order_give_the_same_rows(filled, tmp_path):
    places = table_places("demo", results=tmp_path / "results")
    for split in (1, 0):
        fill_table([dataclasses.replace(QUESTION, splits=(split,))], "digits", places)
    single = [row for row in load_rows(places.file) if row["split"] != "all"]
    whole = [row for row in load_rows(filled.file) if row["split"] != "all"]
    assert comparable(single) == comparable(whole)
    assert len(whole) > 4
    fill_table([QUESTION], "digits", places)  # complete now: only the bootstrap is added
    assert comparable([row for row in load_rows(places.file) if row["split"] == "all"]) == comparable(
        [row for row in load_rows(filled.file) if row["split"] == "all"]
    )


def test_a_complete_table_is_left_alone(filled, monkeypatch):
    before = filled.file.read_bytes()
    monkeypatch.setattr(
        "genaug.experiment.prepare_training", lambda *args, **kwargs: pytest.fail("trained again")
    )
    fill_table([QUESTION], "digits", filled)
    assert filled.file.read_bytes() == before
    assert unfinished(QUESTION, filled.file, "none") == ()
    assert not lacks_bootstrap(QUESTION, filled.file, "none")


def test_what_a_table_chose_by_itself_is_not_asked_again(tmp_path, monkeypatch):
    source = folder_of(photographs(12), tmp_path / "photographs")
    question = dataclasses.replace(QUESTION, data="mine 2-shot", methods=("original",), classifier="auto")
    places = table_places("demo", results=tmp_path / "results")
    fill_table([question], str(source), places, measure=False)
    assert set(read_rows(places.file).classifier.str.partition("@")[0]) == {"probe tf_efficientnet_lite0"}
    monkeypatch.setattr("genaug.tables.run_experiment", lambda *args, **kwargs: pytest.fail("asked again"))
    before = places.file.read_bytes()
    fill_table([question], str(source), places, measure=False)
    assert places.file.read_bytes() == before


def test_another_classifier_backbone_or_scale_is_not_there_yet(filled):
    assert unfinished(dataclasses.replace(QUESTION, classifier_weights="random"), filled.file, "none") == (
        0,
        1,
    )
    assert unfinished(QUESTION, filled.file, "tiny@0123") == (0, 1)
    assert unfinished(dataclasses.replace(QUESTION, scale="hour"), filled.file, "none") == (0, 1)
    assert unfinished(dataclasses.replace(QUESTION, splits=(0, 5)), filled.file, "none") == (5,)


def test_the_bootstrap_interval_holds_the_mean(filled):
    rows = read_rows(filled.file)
    ends = {
        (row.method, row.metric): row.value
        for row in rows.itertuples()
        if row.split == "all" and row.part == ""
    }
    means = rows[(rows.metric == "accuracy") & (rows.split != "all")].groupby("method").value.mean()
    for arm in ("original", "mixup"):
        assert ends[arm, "accuracy_bootstrap_low"] <= means[arm] <= ends[arm, "accuracy_bootstrap_high"]


def row(**changes):
    base = {
        "table": "demo",
        "scale": "hour",
        "method": "diff-ii",
        "variant": "",
        "data": "d",
        "split": 0,
        "condition": "natural",
        "backbone": "tiny@old",
        "classifier": "letters@1",
        "seed": 0,
        "metric": "accuracy",
        "part": "",
        "value": 0.5,
        "n": 10,
    }
    return checked_row({**base, **changes})


def test_a_view_has_one_condition_and_the_newest_backbone(tmp_path):
    file = tmp_path / "rows.csv"
    put(
        [
            row(),
            row(backbone="tiny@zew", value=0.6),
            row(backbone="tiny@zew", condition="validation", split=100),
            row(backbone="tiny@zew", scale="seconds"),
            row(backbone="tiny@zew", classifier="wide@2"),
            row(backbone="tiny@zew", classifier="judge residual", metric="judge_accuracy"),
        ],
        file,
    )
    view = table_rows(file, "hour", "letters", "d")
    assert list(view.classifier) == ["judge residual", "letters@1"]
    assert set(view.condition) == {"natural"}
    assert set(view.backbone) == {"tiny@zew"}
    assert len(table_rows(file, "hour", "letters", "d", "validation")) == 1
    assert len(table_rows(file, "paper")) == 0
    assert scales_shown(file, "hour") == ["hour"]
    assert scales_shown(file, "seconds") == ["seconds", "hour"]


def test_the_home_of_a_draw_depends_on_what_decides_its_images():
    places = Places("rows.csv", table_places("x", results="results").work)
    homes = [
        places.home(Comparison(("original",), **settings))
        for settings in (
            {"shots": 5},
            {"shots": 10},
            {"shots": None, "imbalance_factor": 100.0},
            {"shots": None},
            {"shots": 5, "condition": "correlated"},
            {"shots": 5, "scale": "seconds"},
        )
    ]
    assert len(set(homes)) == 6
    assert places.home(Comparison(("mixup",), classifier="wide")) == homes[0]


def test_set_rows_are_averaged_over_splits_and_reals_left_out():
    rows = pd.DataFrame(
        [
            row(classifier="judge residual", metric="diversity@letters", split=split, value=value, part=part)
            for split, value, part in ((0, 2.0, ""), (1, 4.0, ""), (0, 99.0, "set=real"))
        ]
        + [row()]
    )
    table = set_table(rows, ["original", "diff-ii"])
    assert table.loc["diff-ii", "diversity@letters"] == 3.0
    assert list(table.index) == ["diff-ii"]


def test_the_papers_gain_is_against_its_own_baseline():
    rows = pd.DataFrame(
        [
            row(method=arm, split=split, value=value)
            for arm, values in (("original", (0.5, 0.6)), ("diff-ii", (0.6, 0.7)))
            for split, value in enumerate(values)
        ]
    )
    printed, differs = {"original": 54.56, "diff-ii": 64.61}, {"diff-ii": "s = 1"}
    table = beside_table(view_of(rows, ["original", "diff-ii"]), printed, differs).columns
    assert table["arm"] == ["original", "diff-ii"]
    assert table["paper's gain, points"] == ["–", "+10.05"]
    assert str(table["our gain, points"][1]).startswith("+10.0")
    assert table["what differs"] == ["", "s = 1"]
    assert not any("nan" in str(cell) for cells in table.values() for cell in cells)


def test_a_judge_is_taken_only_if_it_exists(tmp_path):
    from genaug.evaluators import find_evaluators
    from genaug.readers import open_sets

    embedded = find_evaluators(open_sets("digit-scenes"), tmp_path, stored=True)
    assert embedded.judge.name == "residual"
    assert embedded.network.name == "letters"
    assert not list(tmp_path.iterdir())
    assert find_evaluators(open_sets("digits"), tmp_path, stored=True) is None


def test_compare_measures_the_sets_and_the_report_shows_them(tmp_path):
    from genaug.compare import compare
    from genaug.evaluators import find_evaluators
    from genaug.preflight import open_run
    from genaug.report import write_report

    question = Comparison(
        ("original", "round-trip"), "digit-scenes", 1, splits=(0,), repeats=(0,), copies=1, updates=2
    )
    run = open_run(question, "digit-scenes", tmp_path / "out", progress=False)
    actual = compare(run, evaluators=find_evaluators(run.sets, stored=True), source="digit-scenes")
    table = set_table(actual.rows, question.methods)
    # copies, and it shows
    assert list(table.index) == ["round-trip"]
    assert table.loc["round-trip", "judge_accuracy"] > 0.5
    assert table.loc["round-trip", "nearest_ratio@letters"] < 0.9
    assert "recognised by the judge" in write_report(tmp_path / "out").read_text(encoding="utf-8")
