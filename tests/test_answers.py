"""The answers of every run are kept by test image, and what rows say can be computed from them again."""

import dataclasses
import json

import numpy as np
import pytest
from test_experiment import QUESTION, SETS

from genaug import experiment
from genaug.answers import (
    Answers,
    examined,
    load_answers,
    pack,
    pack_answers,
    put_answers,
    read_answers,
    unpack,
)
from genaug.compare import compare
from genaug.comparison import Comparison
from genaug.comparison_report import confusion_table
from genaug.core import LabeledImages
from genaug.experiment import Run, Unit, run_experiment
from genaug.messages import GenaugError
from genaug.metrics.classification import evaluate
from genaug.report import write_report
from genaug.results import read_rows
from genaug.tables import Places, fill_table

KEY = {"table": "demo", "method": "original", "variant": "", "split": "0", "seed": "0"}


def some_test(count=30, classes=3, task="single", seed=0):
    "Pictures of one pixel, as a test part."
    draw = np.random.default_rng(seed)
    names = tuple(f"class {index}" for index in range(classes))
    labels = (
        draw.integers(classes, size=count)
        if task == "single"
        else draw.integers(2, size=(count, classes)).astype(np.float32)
    )
    ids = [f"exam/{index}.png" for index in range(count)]
    return LabeledImages([np.zeros((1, 1, 1), np.uint8)] * count, labels, names, ids, task)


# packing


@pytest.mark.parametrize("values", [[], [0], [255, 0, 3], [256, 0], [65_535] * 1000])
def test_numbers_come_back(values):
    text = pack(np.array(values, int))
    assert unpack(text, len(values)).tolist() == values
    assert json.loads(json.dumps(text)) == text


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[1:],
        lambda text: text[:-8],
        lambda text: text + "AAAA",
        lambda text: "x" + text[1:],
        lambda text: text[:9] + "!" + text[10:],
        lambda text: "bé",
    ],
)
def test_a_damaged_text_is_refused(change):
    with pytest.raises(ValueError):
        unpack(change(pack(np.arange(200))), 200)


def test_a_text_of_another_size_is_refused():
    with pytest.raises(ValueError, match="200 packed numbers"):
        unpack(pack(np.arange(200)), 100)


def test_scores_keep_yes_and_no_exactly():
    scores = np.concatenate(
        [np.nextafter(np.full(9, 0.5), 0), np.full(9, 0.5), [0.0, 1.0, 0.999999]]
    ).reshape(-1, 3)
    levels = unpack(pack_answers(scores, "multi"), *scores.shape)
    assert ((levels >= 8) == (scores >= 0.5)).all()


def test_more_classes_than_fit_into_a_byte(tmp_path):
    test = some_test(400, 300)
    scores = np.random.default_rng(1).random((400, 300))
    put_answers([(KEY, pack_answers(scores, "single"), test)], tmp_path / "a.jsonl")
    (actual,) = read_answers(tmp_path / "a.jsonl")
    assert (actual.answers == scores.argmax(1)).all()
    assert (actual.truth == test.targets).all()


# what can be computed again


@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_one_label_are_those_of_the_rows(seed, tmp_path):
    test, scores = some_test(97, 7, seed=seed), np.random.default_rng(seed).random((97, 7))
    put_answers([(KEY, pack_answers(scores, "single"), test)], tmp_path / "a.jsonl")
    (actual,) = read_answers(tmp_path / "a.jsonl")
    rows = {
        (metric, part): value
        for metric, part, value, _ in evaluate(scores, test.labels, "single", test.class_names)
    }
    assert actual.accuracy == rows["accuracy", ""]
    assert actual.recall().tolist() == [rows["sensitivity", f"class={name}"] for name in test.class_names]
    assert np.diag(actual.confusion()).sum() == actual.correct.sum()


def test_several_labels_keep_which_answers_were_right(tmp_path):
    test, scores = some_test(50, 4, "multi"), np.random.default_rng(0).random((50, 4))
    scores[:20] = test.labels[:20]
    put_answers([(KEY, pack_answers(scores, "multi"), test)], tmp_path / "a.jsonl")
    (actual,) = read_answers(tmp_path / "a.jsonl")
    right = ((scores >= 0.5) == (test.labels >= 0.5)).all(1)
    assert actual.correct.tolist() == right.tolist()
    assert right[:20].all()
    with pytest.raises(GenaugError, match="several labels"):
        actual.confusion()


# files


def three_runs(path):
    test, packed = some_test(), pack_answers(np.eye(3)[np.arange(30) % 3], "single")
    put_answers([(KEY | {"seed": str(seed)}, packed, test) for seed in range(3)], path)
    return test, packed


def test_nothing_is_doubled_and_the_order_of_sittings_does_not_matter(tmp_path):
    test, packed = three_runs(tmp_path / "a.jsonl")
    assert put_answers([(KEY, packed, test)], tmp_path / "a.jsonl") == 3
    for seed in (2, 0, 1):
        put_answers([(KEY | {"seed": str(seed)}, packed, test)], tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 4


def test_test_images_that_nobody_names_any_more_go(tmp_path):
    _, packed = three_runs(tmp_path / "a.jsonl")
    other = some_test(seed=5)
    put_answers([(KEY | {"seed": str(seed)}, packed, other) for seed in range(3)], tmp_path / "a.jsonl")
    tests, units, _, _ = load_answers(tmp_path / "a.jsonl")
    assert list(tests) == [examined(other)["test"]]
    assert len(units) == 3


GARBAGE = [
    "{",
    "[]",
    "7",
    "null",
    '"text"',
    "{}",
    '{"ids": 1}',
    '{"unit": {}, "test": "x", "answers": ""}',
    "<<<<<<< HEAD",
    "\x00",
]


@pytest.mark.parametrize("line", GARBAGE)
def test_a_damaged_line_is_named_by_the_reader_and_dropped_by_the_writer(line, tmp_path):
    path = tmp_path / "a.jsonl"
    test, packed = three_runs(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n")
    with pytest.raises(GenaugError, match="Line 3 of"):
        read_answers(path)
    assert put_answers([(KEY, packed, test)], path) == 3
    assert path.read_text().splitlines() == lines


@pytest.mark.parametrize(
    "field, value",
    [("answers", "b"), ("answers", 3), ("test", "0" * 16), ("test", [1]), ("unit", {"a": 1}), ("unit", None)],
)
def test_a_run_whose_line_does_not_fit_its_test_images_is_damaged(field, value, tmp_path):
    path = tmp_path / "a.jsonl"
    three_runs(path)
    first, second, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, json.dumps(json.loads(second) | {field: value}), *rest]))
    with pytest.raises(GenaugError, match="Line 2 of"):
        read_answers(path)


def test_a_class_that_does_not_exist_is_damage(tmp_path):
    path = tmp_path / "a.jsonl"
    three_runs(path)
    first, second, *rest = path.read_text().splitlines()
    path.write_text(
        "\n".join([first, json.dumps(json.loads(second) | {"answers": pack(np.full(30, 9))}), *rest])
    )
    with pytest.raises(GenaugError, match="Line 2 of"):
        read_answers(path)


# comparisons and tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("answers") / "out"
    compare(
        Run(
            dataclasses.replace(QUESTION, methods=("original", "mixup"), splits=(0, 1)),
            SETS,
            None,
            out,
            False,
        )
    )
    return out


def accuracies(rows):
    chosen = rows[(rows.metric == "accuracy") & (rows.part == "")]
    return {(row.method, row.split, row.seed): row.value for row in chosen.itertuples()}


def test_a_comparison_keeps_the_answers_of_every_run(folder):
    actual = read_answers(folder / "answers.jsonl")
    assert all(finding.ids == tuple(SETS["test"].ids) for finding in actual)
    remaining = {
        (finding.key["method"], finding.key["split"], finding.key["seed"]): finding.accuracy
        for finding in actual
    }
    assert remaining == accuracies(read_rows(folder / "results.csv"))


def test_the_page_shows_which_class_was_taken_for_which(folder):
    page = write_report(folder).read_text(encoding="utf-8")
    assert "Mistakes" in page
    assert "taken for" in page


def test_damaged_answers_do_not_stop_the_page(folder, tmp_path):
    path = folder / "answers.jsonl"
    before = path.read_text()
    path.write_text(before + "{\n")
    assert "is damaged" in write_report(folder).read_text(encoding="utf-8")
    path.write_text(before)


def test_a_result_of_an_earlier_version_is_read_and_not_run_again(folder, tmp_path, monkeypatch):
    run = Run(
        dataclasses.replace(QUESTION, methods=("original", "mixup"), splits=(0,)), SETS, None, folder, False
    )
    for arm in run.arms.values():
        for seed in run.question.repeats:
            record = json.loads(run.path(arm, run.first, seed).read_text())
            assert record.pop("answers")
            path = tmp_path / "runs" / run.path(arm, run.first, seed).name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(record))
    monkeypatch.setattr(experiment, "prepare_training", lambda *_, **__: pytest.fail("was run again"))
    old = dataclasses.replace(run, folder=tmp_path)
    units = [unit for unit, _ in run_experiment(old)]
    assert all(unit.answers == "" and not unit.why for unit in units)
    assert experiment.keep_answers(old, units, tmp_path / "answers.jsonl") == 0
    assert not (tmp_path / "answers.jsonl").exists()


@pytest.mark.parametrize("answers", ["b", 3, None, pack(np.zeros(3, int))])
def test_answers_that_do_not_fit_make_a_stored_result_damaged(answers, folder, tmp_path):
    run = Run(dataclasses.replace(QUESTION, methods=("original",), splits=(0,)), SETS, None, folder, False)
    arm, said = run.arms["original"], []
    record = json.loads(run.path(arm, run.first, 0).read_text())
    other = dataclasses.replace(run, folder=tmp_path)
    other.path(arm, run.first, 0).parent.mkdir()
    other.path(arm, run.first, 0).write_text(json.dumps(record | {"answers": answers}))
    assert experiment.stored_unit(other, arm, run.first, 0, said.append) is None
    assert said[0].kind == "damaged-run"


def test_a_table_keeps_answers_beside_its_rows(tmp_path):
    places = Places(tmp_path / "demo.csv", tmp_path / "work")
    question = Comparison(
        ("original", "mixup"),
        "digits",
        1,
        splits=(0, 1),
        repeats=(0,),
        updates=2,
        table="demo",
        scale="seconds",
    )
    for split in (0, 1):
        fill_table([dataclasses.replace(question, splits=(split,))], "digits", places)
    assert places.answers == tmp_path / "answers" / "demo.jsonl"
    remaining = {
        (answers.key["method"], answers.key["split"], answers.key["seed"]): answers.accuracy
        for answers in read_answers(places.answers)
    }
    assert remaining == accuracies(read_rows(places.file))


def test_mistakes_are_shares_of_the_class():
    said = Answers(KEY, ("a", "b", "c"), np.array([1, 1, 1]), np.array([0, 0, 1]), ("wren", "owl"))
    assert confusion_table([said, said], ("original",)).values.tolist() == [["wren", "owl", 100.0]]


def test_a_failed_run_has_no_answers():
    assert Unit.failed("mixup", 0, 0, "why").answers == ""


@pytest.mark.parametrize("kind", ["folder", "loop", "elsewhere"])
def test_a_file_of_answers_that_is_none_is_refused_or_replaced(kind, tmp_path):
    run = Run(
        dataclasses.replace(QUESTION, methods=("original",), splits=(0,), repeats=(0,)),
        SETS,
        None,
        tmp_path / "out",
        False,
    )
    compare(run)
    path = run.folder / "answers.jsonl"
    before = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
        with pytest.raises(GenaugError, match="answers.jsonl' is a folder"):
            compare(run)
    else:
        path.symlink_to("answers.jsonl" if kind == "loop" else tmp_path / "nowhere.jsonl")
        compare(run)
        assert path.read_bytes() == before
