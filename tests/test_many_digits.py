"""Several labels per image: the embedded set, fresh draws, budgets for the tail, rows of heads and tail, and
what a judge says of a set."""

import dataclasses
import json

import numpy as np
import pytest

from genaug import datasets
from genaug.comparison import Comparison, make_split
from genaug.core import LabeledImages
from genaug.digits import DIGIT_WORDS, digit_scans
from genaug.evaluators import Evaluators, measure_labels, measure_set
from genaug.messages import GenaugError
from genaug.metrics.classification import evaluate, head_and_tail_rows
from genaug.metrics.images import FeatureNetwork
from genaug.plans import Budget, head_and_tail
from genaug.results import missing_units, read_rows


@pytest.fixture(scope="module")
def canvases():
    return datasets.load("many-digits")


def test_heads_are_frequent_and_the_tail_is_rare_but_never_absent(canvases):
    for draw in range(3):
        counts = datasets.load("many-digits", data_draw=draw)["train"].labels.sum(0)
        heads, tail = head_and_tail(counts)
        assert heads.tolist() == [0, 1, 2, 3, 4]
        assert tail.tolist() == [5, 6, 7, 8, 9]
        assert counts.min() >= 3
        assert counts[tail].max() < 60
    for part in ("val", "test"):
        counts = canvases[part].labels.mean(0)
        assert counts.min() > 0.6 * counts.max()
        assert canvases[part].task == "multi"


def test_labels_are_what_is_on_the_canvas(canvases):
    scans, digits = digit_scans()
    for images in canvases.values():
        for row, info in zip(images.labels, images.info):
            there = sorted(int(digits[scan]) for scan in info["digits"])
            assert there == np.flatnonzero(row).tolist()
            assert 1 <= len(there) <= 4
            assert all(DIGIT_WORDS[digit] in info["caption"] for digit in there)


def test_draws_differ_and_share_no_scan_with_the_test(canvases):
    left, right = datasets.load("many-digits", data_draw=1), datasets.load("many-digits", data_draw=2)
    assert not set(left["train"].sha256) & set(right["train"].sha256)
    assert not set(left["test"].ids) & set(right["test"].ids)

    def scans(images):
        return {scan for info in images.info for scan in info["digits"]}

    trained = scans(left["train"]) | scans(right["train"]) | scans(datasets.judging_pool("many-digits"))
    examined = scans(left["val"]) | scans(right["test"]) | scans(canvases["test"])
    assert not trained & examined
    assert datasets.load("many-digits", data_draw=1)["train"].sha256[:5] == left["train"].sha256[:5]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: datasets.load("many-digits", data_draw=-1), "counted from 0"),
        (lambda: datasets.load("textures", data_draw=1), "only many-digits"),
        (lambda: datasets.judging_pool("textures"), "training part"),
        (lambda: Comparison(("original",), "digit-scenes", None, draws=True), "fresh draw"),
        (lambda: Comparison(("original",), "many-digits", 5, draws=True), "--shots none"),
        (lambda: Budget(tail=0).wanted(datasets.load("many-digits")["train"]), "at least 1"),
        (lambda: head_and_tail([3]), "second"),
        (lambda: head_and_tail([3, 4], 2), "no head or no tail"),
        (
            lambda: make_split(Comparison(("original",), "many-digits", 5), datasets.load("many-digits"), 0),
            "several labels",
        ),
    ],
)
def test_what_cannot_be_asked(call, message):
    with pytest.raises(GenaugError, match=message):
        call()


def test_head_and_tail_by_a_sort():
    draw = np.random.default_rng(0)
    for _ in range(200):
        counts = draw.integers(0, 6, draw.integers(2, 12))
        heads = int(draw.integers(1, len(counts)))
        first, rest = head_and_tail(counts, heads)
        assert sorted([*first, *rest]) == list(range(len(counts)))
        assert len(first) == heads
        assert counts[first].min() >= counts[rest].max()
        assert all(item < other for item in first for other in rest if counts[item] == counts[other])


def test_tail_budget(canvases):
    train = canvases["train"]
    slots = Budget(tail=30).slots(train)
    chosen = np.array([slot.class_index for slot in slots])
    assert {index: int((chosen == index).sum()) for index in set(chosen.tolist())} == dict.fromkeys(
        range(5, 10), 30
    )
    assert all(
        train.labels[train.index([slot.anchor])[0], slot.class_index] == 1 and slot.aimed for slot in slots
    )
    assert set(slots) < set(Budget(tail=60).slots(train))
    assert set(Budget(tail=2, heads=8).wanted(train)) == set(
        head_and_tail(train.labels.sum(0), 8)[1].tolist()
    )
    assert Budget(tail=2, fill=True).wanted(train) == dict.fromkeys(range(5, 10), 2)


def test_head_and_tail_rows_are_means_of_the_class_rows():
    draw = np.random.default_rng(1)
    truth, names = (draw.random((60, 6)) < 0.4).astype(float), tuple("abcdef")
    truth[:, 5] = 0  # no positive image: no average precision
    rows = evaluate(draw.random((60, 6)), truth, "multi", names)
    ap = {row.part: row.value for row in rows if row.metric == "average_precision"}
    head, tail = head_and_tail_rows(rows, names, [9, 1, 8, 2, 7, 3])
    assert head.metric == "mean_average_precision_head"
    assert head.value == pytest.approx(np.mean([ap["class=a"], ap["class=c"], ap["class=e"]]))
    assert head.n == 3
    assert tail.metric == "mean_average_precision_tail"
    assert tail.value == pytest.approx(np.mean([ap["class=b"], ap["class=d"]]))
    assert tail.n == 2


def test_splits_are_fresh_draws(canvases):
    question = Comparison(("original",), "many-digits", None, draws=True)
    splits = [make_split(question, canvases, number) for number in (0, 3)]
    assert splits[0].train.fingerprint() == canvases["train"].fingerprint() != splits[1].train.fingerprint()
    assert splits[1].test.ids[0].startswith("test-3-")
    tuning = make_split(dataclasses.replace(question, splits=(100,), condition="validation"), canvases, 100)
    assert tuning.test.ids[0].startswith("val-100-")
    assert tuning.train.ids[0].startswith("train-100-")


class Knowing:
    "A judge that reads the labels from a table of pixels, and forgets some."

    name, network, shown, seed, class_names = "knowing", None, {}, 0, DIGIT_WORDS

    def __init__(self, images, forgets=()):
        self.known = {
            digest: row * np.array([index not in forgets for index in range(10)])
            for digest, row in zip(images.sha256, images.labels)
        }

    def predict(self, images):
        return np.array([self.known[digest] for digest in images.sha256])


def small_features(images):
    return images.batch(size=2, channels=3).flatten(1).numpy()


def test_a_judge_counts_lost_labels(canvases):
    train, pool = canvases["train"], datasets.judging_pool("many-digits")[:800]

    def evaluators(forgets):
        return Evaluators(Knowing(train, forgets), FeatureNetwork("small", small_features), pool)

    value = {
        (metric, part): number for metric, part, number, _ in measure_labels(train, train, evaluators(()))
    }
    assert value["judge_recall", ""] == value["judge_recall_tail", ""] == value["judge_precision", ""] == 1
    value = {
        (metric, part): number
        for metric, part, number, _ in measure_labels(train, train, evaluators((5, 6, 7, 8, 9)))
    }
    assert value["judge_recall_tail", ""] == 0
    assert value["judge_recall_head", ""] == 1 == value["judge_precision", ""]
    assert value["judge_recall", "class=nine"] == 0
    assert value["judge_recall", "class=two"] == 1
    assert value["tail_kid@small", ""] == value["tail_kid@small", "set=real"]
    assert value["nearest_ratio@small", ""] == 0
    assert measure_set(train, train, evaluators(()))[0][0] == "judge_recall"
    empty = LabeledImages([train.image(0)] * 3, np.zeros((3, 10)), train.class_names, list("abc"), "multi")
    judge = Evaluators(Knowing(train), FeatureNetwork("small", small_features), pool)
    assert np.isnan(
        {row[0]: row[2] for row in measure_labels(empty, train, judge) if row[1] == ""}["judge_recall"]
    )


def test_a_comparison_from_the_command_line_to_the_report(tmp_path, capsys):
    from genaug.cli import run

    out = tmp_path / "out"
    assert (
        run(
            [
                "compare",
                "many-digits",
                "--methods",
                "original,mixup,smote@tail=3",
                "--shots",
                "none",
                "--seeds",
                "2",
                "--repeats",
                "1",
                "--updates",
                "2",
                "--out",
                str(out),
                "--quiet",
                "--no-measure",
            ]
        )
        == 0
    )
    rows = read_rows(out / "results.csv")
    assert {"mean_average_precision", "mean_average_precision_head", "mean_average_precision_tail"} <= set(
        rows.metric
    )
    assert "accuracy" not in set(rows.metric)
    question = json.loads((out / "comparison.json").read_text())["question"]
    assert question["draws"]
    assert question["shots"] is None
    used = json.loads(rows[rows.method == "smote"].settings.iloc[0])
    assert used["synthetic"] == 15
    assert used["train"] == 400
    assert missing_units(rows, ("original", "mixup"), (0, 1), (0,)) == []
    assert missing_units(rows, ("original",), (2,), (0,)) == [("original", 2, 0)]
    page = next(out.glob("*.html")).read_text()
    assert "fresh draw" in page
    assert "[nan" not in page
    assert "bootstrap" not in page
    assert run(["compare", "many-digits", "--out", str(tmp_path / "other"), "--quiet"]) == 2
    assert "--shots none" in capsys.readouterr().err
