"""One bad cell never stops a table: it becomes a row that says why, the others go on, and nothing that was
measured vanishes."""

import dataclasses
import errno
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import Timeout
from test_experiment import QUESTION, ROW, SETS, pool, rows_of

from genaug import comparison_folder, experiment, results, summary
from genaug import evaluators as judging
from genaug.compare import compare
from genaug.comparison import Comparison, make_split
from genaug.comparison_folder import asked_rows, read_comparison
from genaug.evaluators import find_evaluators
from genaug.experiment import Run, Unit, run_experiment
from genaug.files import read_findings
from genaug.messages import GenaugError
from genaug.results import FAILED, arm_text, failed_row, load_rows, missing_units, put, read_rows
from genaug.summary import summarise, written_summary
from genaug.training_presets import training_preset


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    "Fewer bootstrap samples: this page is not about intervals."
    with pytest.MonkeyPatch.context() as patch:
        plain = summary.bootstrap_interval
        patch.setattr(
            summary, "bootstrap_interval", lambda scores, seed=0: plain(scores, draws=20, seed=seed)
        )
        yield


ONE = dataclasses.replace(QUESTION, methods=("original", "smote", "mixup"), repeats=(0, 1), copies=1)


def runs_of(path):
    return {
        (arm_text(row.method, row.variant), int(row.split), int(row.seed)): row
        for row in read_rows(path / "results.csv").itertuples()
        if row.metric in ("accuracy", FAILED) and row.part == ""
    }


def failing(monkeypatch, name, arm, split=None, seed=None, error=None):
    "Make a step of one cell fail."
    plain = getattr(experiment, name)

    def step(bench, made, *rest):
        at = next(item for item in rest if hasattr(item, "manifest"))
        if made.text == arm and split in (None, at.number) and seed in (None, rest[-1]):
            raise (
                error
                if error is not None
                else GenaugError("The loss is not finite; lower the learning rate.")
            )
        return plain(bench, made, *rest)

    monkeypatch.setattr(experiment, name, step)


# failing cells


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Input contains NaN."),
        RuntimeError("CUDA error"),
        torch.OutOfMemoryError("out of memory"),
        ZeroDivisionError("division by zero"),
        FloatingPointError("overflow"),
        IndexError("out of range"),
        KeyError("name"),
        TypeError("paint returned nothing"),
        np.linalg.LinAlgError("SVD did not converge"),
        RecursionError("too deep"),
        GenaugError("bad \x1b[31m colours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_step_that_fails_says_why_in_one_printable_line(error):
    result, why = experiment.attempt(lambda: (_ for _ in ()).throw(error))
    assert result is None
    assert why
    assert why.isprintable()


@pytest.mark.parametrize(
    "error",
    [
        GenaugError("No synthetic image was used: raise the rounds."),
        np.linalg.LinAlgError("SVD did not converge"),
        KeyError("name"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failing_arm_becomes_rows_and_the_others_go_on(error, monkeypatch, tmp_path):
    failing(
        monkeypatch,
        "run_unit" if isinstance(error, (GenaugError, KeyError, RuntimeError)) else "paint_arm",
        "smote",
        error=error,
    )
    actual = compare(Run(ONE, SETS, None, tmp_path, False))
    runs = runs_of(tmp_path)
    assert {key: row.metric for key, row in runs.items()} == {
        (arm, split, seed): FAILED if arm == "smote" else "accuracy"
        for arm in ONE.methods
        for split in (0, 1)
        for seed in (0, 1)
    }
    row = runs["smote", 1, 0]
    assert math.isnan(row.value)
    assert row.n == 0
    assert json.loads(row.settings)["why"]
    (finding,) = [finding for finding in actual.findings if finding.kind == "failed-run"]
    assert finding.severity == "error"
    assert "'smote' gave no result in 4 of 4 runs" in finding.message
    assert finding.message in actual.notes
    assert finding in read_findings(tmp_path)
    assert missing_units(actual.rows, ONE.methods, ONE.splits, ONE.repeats) == [
        ("smote", split, seed) for split in (0, 1) for seed in (0, 1)
    ]


def test_one_failing_cell_is_a_gap_that_is_named(monkeypatch, tmp_path):
    failing(monkeypatch, "run_unit", "mixup", split=1, seed=0)
    actual = compare(Run(dataclasses.replace(ONE, splits=(0, 1, 2)), SETS, None, tmp_path, False))
    line = actual.summary.set_index("arm").loc["mixup"]
    assert (line.splits, line.runs, line.failed) == (3, 5, 1)
    assert (
        written_summary(actual.summary)
        .set_index("arm")
        .loc["mixup", "splits x repeats"]
        .endswith("(1 failed)")
    )
    (finding,) = [finding for finding in actual.findings if finding.kind == "failed-run"]
    assert finding.severity == "warning"
    assert "in 1 of 6 runs (splits 1)" in finding.message
    assert "learning rate" in finding.message
    assert json.loads((tmp_path / "summary.json").read_text())["notes"]


def test_differences_are_over_the_splits_that_both_have():
    rows = pd.concat(
        [
            rows_of({"original": {(0, 0): 0.5, (1, 0): 0.6}, "mixup": {(0, 0): 0.7}}),
            pd.DataFrame([failed_row(ROW | {"method": "mixup", "split": 1}, "no")]),
        ]
    )
    line = summarise(rows, ("original", "mixup")).set_index("arm").loc["mixup"]
    assert (line.splits, line.failed) == (1, 1)
    assert np.isclose(line["minus original"], 0.2)


@pytest.mark.parametrize("gone", ["original", "mixup"])
def test_an_arm_without_any_result_stays_in_the_summary(gone, monkeypatch, tmp_path):
    failing(monkeypatch, "run_unit", gone)
    actual = compare(Run(ONE, SETS, None, tmp_path, False))
    assert list(actual.summary.arm) == list(ONE.methods)
    assert actual.summary.set_index("arm").loc[gone, "splits"] == 0
    assert written_summary(actual.summary).set_index("arm").loc[gone, "mean, 95 % interval"] == "–"


def test_a_comparison_of_which_nothing_worked_still_ends_with_rows(monkeypatch, tmp_path):
    for arm in ONE.methods:
        failing(monkeypatch, "run_unit", arm)
    actual = compare(Run(ONE, SETS, None, tmp_path, False))
    assert set(actual.rows.metric) == {FAILED}
    assert len(actual.rows) == 12
    assert {finding.severity for finding in actual.findings if finding.kind == "failed-run"} == {"error"}


def test_a_failed_run_is_tried_again_and_its_row_goes(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        failing(patch, "run_unit", "mixup", split=0)
        compare(Run(ONE, SETS, None, tmp_path, False))
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    again = compare(Run(ONE, SETS, None, tmp_path, False))
    assert FAILED not in set(read_rows(tmp_path / "results.csv").metric)
    assert not [finding for finding in again.findings if finding.kind == "failed-run"]
    assert all(path.stat().st_mtime_ns == before for path, before in stored.items())
    pd.testing.assert_series_equal(
        again.rows.value, compare(Run(ONE, SETS, None, tmp_path / "unbroken", False)).rows.value
    )


def test_what_was_painted_in_vain_is_not_tried_for_each_repeat(monkeypatch, tmp_path):
    calls, plain = [], experiment.paint_arm
    monkeypatch.setattr(
        experiment,
        "paint_arm",
        lambda bench, arm, split: (
            calls.append(arm.text) or (_ for _ in ()).throw(GenaugError("no"))
            if arm.augmenter is not None
            else plain(bench, arm, split)
        ),
    )
    compare(Run(dataclasses.replace(ONE, repeats=(0, 1, 2)), SETS, None, tmp_path, False))
    assert calls == ["smote"] * 2


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        MemoryError(),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        PermissionError(errno.EACCES, "Permission denied"),
    ],
    ids=lambda error: type(error).__name__ + str(error)[:9],
)
def test_what_concerns_the_machine_stops_the_comparison(error, monkeypatch, tmp_path):
    failing(monkeypatch, "run_unit", "smote", error=error)
    with pytest.raises((type(error), GenaugError)):
        compare(Run(ONE, SETS, None, tmp_path, False))


@pytest.mark.parametrize(
    "cause", [OSError(errno.ENOSPC, "No space left on device"), Timeout("lock")], ids=["disk", "lock"]
)
@pytest.mark.parametrize("hidden", [True, False])
def test_a_sentence_about_the_disk_or_another_process_stops_it_too(cause, hidden, monkeypatch, tmp_path):
    try:
        try:
            raise cause
        except OSError as error:
            raise GenaugError("Cannot write.") from (None if hidden else error)
    except GenaugError as error:
        failing(monkeypatch, "paint_arm", "smote", error=error)
        with pytest.raises(GenaugError, match="Cannot write"):
            compare(Run(ONE, SETS, None, tmp_path, False))


def test_a_loss_that_is_not_finite_is_a_cell(monkeypatch, tmp_path):
    from genaug import classifier

    plain = classifier._batch_loss
    monkeypatch.setattr(
        classifier,
        "_batch_loss",
        lambda trained, schedule, store, rows: (
            plain(trained, schedule, store, rows) * (math.nan if schedule.mixer is not None else 1)
        ),
    )
    actual = compare(Run(ONE, SETS, None, tmp_path, False))
    (why,) = {json.loads(row.settings)["why"] for row in actual.rows.itertuples() if row.metric == FAILED}
    assert "became nan" in why
    assert "learning rate" in why
    assert set(actual.summary.set_index("arm").splits) == {0, 2}


def test_answers_that_are_not_finite_are_a_cell(monkeypatch, tmp_path):
    from genaug.trained_classifier import TrainedClassifier

    monkeypatch.setattr(
        TrainedClassifier, "predict", lambda self, images, batch_size=256: np.full((len(images), 3), np.nan)
    )
    actual = compare(Run(ONE, SETS, None, tmp_path, False))
    assert set(actual.rows.metric) == {FAILED}
    assert "diverged" in json.loads(actual.rows.settings[0])["why"]


# filters


class Turned:
    "A set of which a filter turned down everything, or whole classes."

    @staticmethod
    def down(monkeypatch, keep, splits=(0, 1)):
        from genaug.balance.smote import Smote
        from genaug.contracts import Decision

        monkeypatch.setattr(
            Smote,
            "select",
            lambda self, rows, images, real: [
                Decision(keep(real, row, index), 1.0, "turned down") for index, row in enumerate(rows)
            ],
        )


def test_a_filter_that_turned_everything_down_is_a_cell_and_a_rerun_ends_too(monkeypatch, tmp_path):
    Turned.down(monkeypatch, lambda real, row, index: False)
    for _ in range(2):
        actual = compare(Run(ONE, SETS, None, tmp_path, False))
        assert {
            json.loads(row.settings)["why"].split(":")[0]
            for row in actual.rows.itertuples()
            if row.metric == FAILED
        } == {"No synthetic image was used"}
        assert actual.summary.set_index("arm").splits.to_dict() == {"original": 2, "smote": 0, "mixup": 2}


def test_classes_that_end_empty_are_named(monkeypatch, tmp_path):
    Turned.down(monkeypatch, lambda real, row, index: row.label[0] != 1)
    actual = compare(Run(ONE, SETS, None, tmp_path, False))
    (finding,) = [finding for finding in actual.findings if finding.kind == "empty-class"]
    assert finding.severity == "warning"
    assert finding.where == "smote"
    assert "1 of 3 classes (class 0)" in finding.message
    assert "on 2 of 2 splits" in finding.message
    assert finding.message in actual.notes
    again = compare(Run(ONE, SETS, None, tmp_path, False))
    assert finding in again.findings


def test_fewer_images_than_wanted_are_a_note(monkeypatch, tmp_path):
    Turned.down(monkeypatch, lambda real, row, index: index % 2 == 0)
    (finding,) = [
        finding
        for finding in compare(Run(ONE, SETS, None, tmp_path, False)).findings
        if finding.kind == "fewer-images"
    ]
    assert finding.severity == "note"
    assert "6 of 12 images" in finding.message


# what is measured of sets


@pytest.fixture(scope="module")
def evaluators(tmp_path_factory):
    return find_evaluators(
        SETS, tmp_path_factory.mktemp("judges"), preset=training_preset("judge", updates=2)
    )


def test_a_set_that_cannot_be_measured_is_a_row(evaluators, monkeypatch, tmp_path):
    monkeypatch.setattr(judging, "measure_set", lambda *_: (_ for _ in ()).throw(np.linalg.LinAlgError("no")))
    actual = compare(Run(ONE, SETS, None, tmp_path, False), evaluators=evaluators)
    judged = actual.rows[actual.rows.classifier.str.startswith("judge")]
    assert set(judged.metric) == {FAILED}
    assert len(judged) == 2
    monkeypatch.undo()
    again = compare(Run(ONE, SETS, None, tmp_path, False), evaluators=lambda: evaluators)
    assert FAILED not in set(again.rows.metric)


def test_a_set_that_was_never_made_is_not_made_for_the_judge(evaluators, monkeypatch, tmp_path):
    failing(monkeypatch, "paint_arm", "smote")
    actual = compare(Run(ONE, SETS, None, tmp_path, False), evaluators=evaluators)
    assert not actual.rows.classifier.str.startswith("judge").any()


@pytest.fixture(scope="module")
def measured(evaluators, tmp_path_factory):
    question, folder = (
        dataclasses.replace(ONE, methods=("smote",), splits=(0,), repeats=(0,)),
        tmp_path_factory.mktemp("measured"),
    )
    bench, split = (
        experiment.Run(question, SETS, None, folder, False),
        make_split(question, SETS, 0),
    )
    first = judging.measure_arm(bench, bench.arm("smote"), split, evaluators)
    (path,) = (folder / "runs").glob("set-*.json")
    return bench, split, path, first


# stored results of the wrong shape

GARBAGE = ["", "{", "[]", "[1, 2]", "7", "null", "true", '"text"', "{}", "NaN", "[[[[]]]]", "\x00\x00"]


def spoiled(change):
    def spoil(text):
        record = json.loads(text)
        return json.dumps(change(record) or record)

    return spoil


def setting(**fields):
    return spoiled(lambda record: record | fields)


WRONG = [
    *(lambda _, text=text: text for text in GARBAGE),
    setting(metrics=[]),
    setting(metrics=7),
    setting(metrics=[["accuracy", "", 0.5]]),
    setting(metrics=[["accuracy", "", 0.5, 18, 1]]),
    setting(metrics=[["accuracy", "", "0.5", 18]]),
    setting(metrics=[["accuracy", "", float("nan"), 18]]),
    setting(metrics=[["accuracy", "", float("inf"), 18]]),
    setting(metrics=[["accuracy", "", True, 18]]),
    setting(metrics=[["f1", "class=a", 0.5, 18]]),
    setting(metrics=[["accuracy", "", 0.5, -1]]),
    setting(metrics={"accuracy": 1}),
    setting(correct="0"),
    setting(correct="2" * 18),
    setting(correct=[1, 0]),
    setting(correct=None),
    setting(arm=3),
    setting(split="0"),
    setting(split=9),
    setting(seed=9),
    setting(wall_s="long"),
    setting(wall_s=float("nan")),
    setting(evaluations=None),
    setting(settings=[]),
    setting(extra=1),
    spoiled(lambda record: record.pop("correct") and None),
    spoiled(lambda record: [record]),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    question = dataclasses.replace(QUESTION, methods=("original",), splits=(0,))
    compare(Run(question, SETS, None, folder, False))
    return question, folder


@pytest.mark.parametrize("damage", range(len(WRONG)))
def test_a_stored_result_of_the_wrong_shape_counts_as_not_there(damage, finished, tmp_path):
    question, before = finished
    (stored,) = (before / "runs").iterdir()
    bench, split, said = (
        experiment.Run(question, SETS, None, tmp_path, False),
        make_split(question, SETS, 0),
        [],
    )
    path = tmp_path / "runs" / stored.name
    path.parent.mkdir()
    path.write_text(stored.read_text())
    assert experiment.stored_unit(bench, bench.arm("original"), split, 0, said.append) is not None
    assert said == []
    path.write_text(WRONG[damage](stored.read_text()))
    assert experiment.stored_unit(bench, bench.arm("original"), split, 0, said.append) is None
    assert [(finding.kind, finding.severity, finding.where) for finding in said] == [
        ("damaged-run", "note", f"runs/{stored.name}")
    ]


@pytest.mark.parametrize("damage", [2, 8, 14, 20, -2])
def test_a_stored_result_of_the_wrong_shape_is_run_again_and_said(damage, finished, tmp_path):
    question, before = finished
    shutil.copytree(before, tmp_path / "out")
    (path,) = (tmp_path / "out" / "runs").iterdir()
    path.write_text(WRONG[damage](path.read_text()))
    actual = compare(Run(question, SETS, None, tmp_path / "out", False))
    assert [finding.kind for finding in actual.findings] == ["damaged-run"]
    assert actual.findings[0].severity == "note"
    assert Unit.load(path) is not None
    assert (
        load_rows(tmp_path / "out" / "results.csv")[0]["value"]
        == load_rows(before / "results.csv")[0]["value"]
    )


@pytest.mark.parametrize(
    "text",
    [
        *GARBAGE,
        '[["kid", "", 0.5]]',
        '[["kid", "", "x", 3]]',
        '[["kid", 0, 0.5, 3]]',
        '[["kid", "", Infinity, 3]]',
        '{"kid": 1}',
    ],
)
def test_a_stored_measurement_of_the_wrong_shape_is_made_again(text, measured, evaluators):
    bench, split, path, first = measured
    path.write_text(text)
    assert judging.measure_arm(bench, bench.arm("smote"), split, evaluators) == first
    assert json.loads(path.read_text())


@pytest.mark.parametrize("file", ["summary.json", "splits/0.json", "findings.json"])
@pytest.mark.parametrize("text", ["[]", "{", "7"])
def test_other_files_of_the_wrong_shape_are_written_again(file, text, finished, tmp_path):
    question, before = finished
    shutil.copytree(before, tmp_path / "out")
    (tmp_path / "out" / file).write_text(text)
    compare(Run(question, SETS, None, tmp_path / "out", False))
    assert (tmp_path / "out" / file).read_text() == (before / file).read_text()


@pytest.mark.parametrize("text", ["7", "[]", '{"folder": 3}', '{"folder": "../../elsewhere"}', "{"])
def test_a_note_of_the_wrong_shape_counts_as_none(text, tmp_path):
    question = dataclasses.replace(ONE, methods=("smote",), splits=(0,), repeats=(0,))
    list(run_experiment(Run(question, SETS, None, tmp_path, False)))
    (note,) = (tmp_path / "synthetic" / "split-0").glob("*.json")
    note.write_text(text)
    assert comparison_folder.noted_arm(tmp_path, "smote", 0) is None
    list(run_experiment(Run(dataclasses.replace(question, repeats=(0, 1)), SETS, None, tmp_path, False)))
    assert comparison_folder.noted_arm(tmp_path, "smote", 0) is not None


# a second comparison into the same folder


def test_other_methods_leave_the_earlier_rows_where_they_are(tmp_path):
    compare(Run(QUESTION, SETS, None, tmp_path, False))
    before = {
        tuple(row[name] for name in results.KEY): row["value"] for row in load_rows(tmp_path / "results.csv")
    }
    actual = compare(
        Run(dataclasses.replace(QUESTION, methods=("original", "cutmix")), SETS, None, tmp_path, False)
    )
    after = {
        tuple(row[name] for name in results.KEY): row["value"] for row in load_rows(tmp_path / "results.csv")
    }
    assert before.items() <= after.items() or all(
        after[key] == value or math.isnan(value) for key, value in before.items()
    )
    assert list(actual.summary.arm) == ["original", "cutmix"]
    assert set(actual.rows.method) == {
        "original",
        "cutmix",
    }
    (finding,) = [finding for finding in actual.findings if finding.kind == "other-rows"]
    assert "mixup" in finding.message
    assert finding.message in actual.notes


def test_other_splits_are_kept_and_not_averaged(tmp_path):
    compare(Run(dataclasses.replace(QUESTION, splits=(0, 1, 2)), SETS, None, tmp_path, False))
    actual = compare(Run(dataclasses.replace(QUESTION, splits=(1,)), SETS, None, tmp_path, False))
    assert set(read_rows(tmp_path / "results.csv").split) == {"0", "1", "2"}
    assert set(actual.summary.splits) == {1}
    assert set(actual.rows.split) == {"1"}
    assert set(asked_rows(read_rows(tmp_path / "results.csv"), read_comparison(tmp_path)).split) == {"1"}


@pytest.mark.parametrize(
    "change, word",
    [
        ({"copies": 2}, "copies"),
        ({"updates": 3}, "updates"),
        ({"replace": 0.25}, "replacement"),
        ({"use": "append"}, "use"),
        ({"even": True}, "even"),
        ({"classifier": "residual"}, "classifier"),
        ({"classifier_weights": None}, "weights"),
        ({"shots": 3}, "shots"),
        ({"test_fraction": 0.4}, "kept back"),
        ({"suffixes": ("on grass",)}, "suffixes"),
        ({"data": "other"}, "data"),
    ],
)
def test_what_would_make_rows_mean_something_else_is_refused(change, word, finished, tmp_path):
    question, before = finished
    shutil.copytree(before, tmp_path / "out")
    rows = (tmp_path / "out" / "results.csv").read_bytes()
    with pytest.raises(GenaugError, match=f"{word}.* changed"):
        compare(Run(dataclasses.replace(question, **change), SETS, None, tmp_path / "out", False))
    assert (tmp_path / "out" / "results.csv").read_bytes() == rows
    assert read_comparison(tmp_path / "out")["question"] == read_comparison(before)["question"]


def test_other_photographs_under_the_same_name_are_refused(finished, tmp_path):
    question, before = finished
    shutil.copytree(before, tmp_path / "out")
    with pytest.raises(GenaugError, match="photographs of split 0 changed"):
        compare(Run(question, {"train": pool(seed=5), "test": SETS["test"]}, None, tmp_path / "out", False))


@pytest.mark.parametrize(
    "again", ["photos", "photos/", "./photos", "../{name}/photos", "{absolute}", "photos/../photos"]
)
def test_one_folder_written_in_several_ways_is_one_source(again, monkeypatch, tmp_path):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    again = again.format(name=tmp_path.name, absolute=tmp_path / "photos")
    question = dataclasses.replace(QUESTION, methods=("original",), splits=(0,))
    compare(Run(question, SETS, None, tmp_path / "out", False), source="photos")
    compare(Run(question, SETS, None, tmp_path / "out", False), source=again)
    assert read_comparison(tmp_path / "out")["source"] == again
    with pytest.raises(GenaugError, match="the source changed"):
        compare(Run(question, SETS, None, tmp_path / "out", False), source="elsewhere")


def test_a_folder_begun_by_the_version_before_still_opens(finished, tmp_path):
    question, before = finished
    shutil.copytree(before, tmp_path / "out")
    path = tmp_path / "out" / "comparison.json"
    record = json.loads(path.read_text())
    for name in ("place", "shared"):
        del record[name]
    del record["question"]["even"]
    path.write_text(json.dumps(record))
    actual = compare(Run(question, SETS, None, tmp_path / "out", False))
    assert actual.findings == ()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "7",
        "{}",
        '{"genaug_comparison": 1}',
        '{"genaug_comparison": 1, "question": {}, "source": "toy"}',
        '{"genaug_comparison": 1, "question": {"methods": 1}, "source": 3}',
        "{",
        "\x00",
    ],
)
def test_a_damaged_record_is_a_sentence(text, finished, tmp_path):
    question, before = finished
    shutil.copytree(before, tmp_path / "out")
    (tmp_path / "out" / "comparison.json").write_text(text)
    with pytest.raises(GenaugError, match="damaged"):
        compare(Run(question, SETS, None, tmp_path / "out", False))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace(",18,", ",eighteen,", 1),
        lambda text: text + "short,row\n",
        lambda text: text + ",".join("x" * 40) + "\n",
        lambda text: "\ufeff" + text,
        lambda text: text[:40],
        lambda text: text.replace("0.", "inf.", 1),
    ],
)
def test_a_damaged_table_is_a_sentence_before_any_work(spoil, finished, tmp_path):
    question, before = finished
    shutil.copytree(before, tmp_path / "out")
    path = tmp_path / "out" / "results.csv"
    text = spoil(path.read_text())
    path.write_text(text)
    with pytest.raises(GenaugError):
        compare(Run(dataclasses.replace(question, methods=("mixup",)), SETS, None, tmp_path / "out", False))
    assert path.read_text() == text
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 1


# rows


def test_a_failed_row_survives_the_file_and_gives_way_to_a_result_in_any_order(tmp_path):
    failure, result = (
        failed_row(ROW | {"split": 3}, 'A "reason", with a comma\nand a line'),
        ROW | {"split": 3},
    )
    put([failure], tmp_path / "one.csv")
    assert (
        json.loads(load_rows(tmp_path / "one.csv")[0]["settings"])["why"]
        == 'A "reason", with a comma\nand a line'
    )
    put([result], tmp_path / "one.csv")
    put([result], tmp_path / "two.csv")
    put([failure, ROW], tmp_path / "two.csv")
    assert [row["metric"] for row in load_rows(tmp_path / "one.csv")] == ["accuracy"]
    assert [row["metric"] for row in load_rows(tmp_path / "two.csv")] == ["accuracy", "accuracy"]


@pytest.mark.parametrize(
    "change",
    [
        {"value": "x"},
        {"value": None},
        {"n": "1.5"},
        {"n": float("nan")},
        {"value": float("inf")},
        {"wall_s": "long"},
        {None: "surplus"},
    ],
)
def test_a_row_whose_numbers_are_none_is_a_sentence(change):
    with pytest.raises(GenaugError):
        results.checked_row(ROW | change)


def test_a_first_write_that_was_killed_does_not_block_the_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".comparison.json-x1.part").write_text("{")
    comparison_folder.check_claim(tmp_path / "out", Comparison(("original",)), "digits")
    (tmp_path / "out" / "mine.txt").write_text("a note")
    with pytest.raises(GenaugError, match="not empty"):
        comparison_folder.check_claim(tmp_path / "out", Comparison(("original",)), "digits")


@pytest.mark.parametrize("damage", [b"", b"{", None])
def test_a_set_inside_a_comparison_whose_plan_is_damaged_is_painted_again(tmp_path, damage):
    home = tmp_path / "real-gen-1"
    (home / "train").mkdir(parents=True)
    (home / "train" / "metadata.jsonl").write_text("")
    if damage is not None:
        (home / "plan.jsonl").write_bytes(damage)
    experiment._clear_unreadable(home)
    assert not home.exists()


def test_a_set_that_another_process_is_just_beginning_stays(tmp_path):
    (tmp_path / "home" / ".genaug").mkdir(parents=True)
    experiment._clear_unreadable(tmp_path / "home")
    assert (tmp_path / "home" / ".genaug").is_dir()
