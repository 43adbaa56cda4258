"""Result rows, splits, resuming and the statistics of a comparison."""

import dataclasses
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_sets import noise_set

from genaug import experiment
from genaug.arms import parse_methods
from genaug.compare import compare, tune
from genaug.comparison import Comparison, classifier_preset, make_split
from genaug.comparison_folder import claim_comparison
from genaug.data.splits import Manifest
from genaug.experiment import Run, Unit, paint_arm, run_experiment
from genaug.messages import GenaugError
from genaug.preflight import estimate, split_notes
from genaug.results import (
    KEY,
    arm_fields,
    arm_text,
    checked_row,
    foreign_backbones,
    load_rows,
    missing_units,
    put,
    read_rows,
)
from genaug.summary import bootstrap_difference, summarise, written_summary

ROOT = Path(__file__).resolve().parent.parent
ROW = {
    "table": "demo",
    "scale": "seconds",
    "data": "toy",
    "split": 0,
    "condition": "natural",
    "backbone": "tiny@0",
    "classifier": "letters",
    "seed": 0,
    "metric": "accuracy",
    "part": "",
    "value": 0.5,
    "n": 40,
    "method": "original",
    "variant": "",
}


def pool(per_class=12, classes=3, seed=0, prefix="pool", size=8):
    "Photographs of a few classes that a classifier can tell apart by brightness."
    labels, names = np.repeat(np.arange(classes), per_class), [f"class {index}" for index in range(classes)]
    tints = 40 + 70 * np.arange(classes)
    ids = [f"{prefix}/{label}-{number}.png" for number, label in enumerate(labels)]
    return noise_set(labels, names, size=size, seed=seed, high=40, tints=tints, ids=ids)


SETS = {"train": pool(), "test": pool(6, seed=1, prefix="exam")}
QUESTION = Comparison(
    ("original", "mixup"),
    data="toy",
    shots=2,
    splits=(0, 1),
    repeats=(0,),
    updates=2,
    classifier_weights="random",
)


# rows


@pytest.mark.parametrize(
    "text",
    ["original", "mixup@alpha=0.2", "diff-ii@guidance_scale=2;split_ratio=0.3+cutmix", "round-trip+mixup"],
)
def test_an_arm_survives_its_two_fields(text):
    fields = arm_fields(text)
    assert arm_text(fields["method"], fields["variant"]) == text
    assert "@" not in fields["method"]


@pytest.mark.parametrize("field", KEY)
def test_each_key_field_makes_another_row_and_nothing_else_does(field, tmp_path):
    put([ROW], tmp_path / "rows.csv")
    assert put([ROW | {field: "7"}], tmp_path / "rows.csv") == 2
    assert (
        put(
            [
                ROW
                | {
                    "settings": "x",
                    "version": "2",
                    "device": "cuda",
                    "wall_s": 9,
                    "evaluations": 3,
                    "n": 1,
                    "value": 1,
                }
            ],
            tmp_path / "rows.csv",
        )
        == 2
    )


@pytest.mark.parametrize("change", [{"metric": None}, {"surprise": 1}])
def test_a_row_with_missing_or_unknown_fields_is_refused(change):
    row = {key: value for key, value in (ROW | change).items() if value is not None}
    with pytest.raises(GenaugError, match="metric|surprise"):
        checked_row(row)


def test_hostile_texts_and_numbers_survive_the_file(tmp_path):
    rows = [
        checked_row(ROW | {"part": part, "value": value})
        for part, value in (
            ('class=a,b\n"c"', 0.1 + 0.2),
            ("class=NA", float("nan")),
            ("class=007", 1e-300),
            ("", 1.0),
        )
    ]
    put(rows, tmp_path / "rows.csv")
    again = load_rows(tmp_path / "rows.csv")
    expected = {row["part"]: row["value"] for row in rows}
    assert {row["part"] for row in again} == set(expected)
    assert all(row["value"] == expected[row["part"]] or math.isnan(expected[row["part"]]) for row in again)


def test_the_order_of_putting_does_not_change_the_file(tmp_path):
    rows = [ROW | {"split": split, "seed": seed} for split in (0, 2, 10) for seed in (0, 1)]
    put(rows, tmp_path / "one.csv")
    for row in reversed(rows):
        put([row], tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert read_rows(tmp_path / "one.csv").split.tolist() == ["0", "0", "2", "2", "10", "10"]


def put_many(path, split):
    for seed in range(5):
        put([ROW | {"split": split, "seed": seed}], path)


def test_two_processes_may_put_into_one_file(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=put_many, args=(tmp_path / "rows.csv", split)) for split in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(read_rows(tmp_path / "rows.csv")) == 10


def test_a_file_that_is_none_of_ours_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(GenaugError, match="columns differ"):
        put([ROW], path)
    assert path.read_text() == "a,b\n1,2\n"


def test_missing_runs_are_named():
    rows = pd.DataFrame([checked_row(ROW | {"split": split}) for split in (0, 2)])
    assert missing_units(rows, ["original"], [0, 1, 2], [0]) == [("original", 1, 0)]
    assert missing_units(rows, ["original"], [0], [0], backbone="tiny@1") == [("original", 0, 0)]


def test_rows_of_another_embedded_backbone_are_flagged():
    rows = pd.DataFrame(
        [
            checked_row(ROW | {"backbone": name})
            for name in ("tiny@aaaaaaaaaaaa", "tiny@bbbbbbbbbbbb", "sd15@cccccccccccc", "none")
        ]
    )
    assert foreign_backbones(rows, "a" * 64) == ["tiny@bbbbbbbbbbbb"]


@pytest.mark.parametrize("path", sorted((ROOT / "nbs" / "results").glob("*.csv")), ids=lambda path: path.name)
def test_the_committed_rows_were_measured_with_the_shipped_backbone(path):
    from genaug.stable_diffusion import load_backbone

    assert foreign_backbones(read_rows(path), load_backbone("tiny").fingerprint()) == []


# the question


@pytest.mark.parametrize(
    "change, words",
    [
        ({"splits": ()}, "at least one split"),
        ({"repeats": ()}, "at least one"),
        ({"imbalance_factor": 10}, "either a number of shots or"),
        ({"shots": 0}, "at least 1"),
        ({"copies": 0}, "copies=0: it must be a finite number above 0"),
        ({"replace": 1.5}, "at most 1"),
        ({"updates": 0}, "updates=0: it must be a whole number at least 1"),
        ({"test_fraction": 1.0}, "above 0 and below 1"),
        ({"condition": "validation"}, "100 to 104"),
        ({"table": "bars", "splits": (100,)}, "for tuning"),
    ],
)
def test_an_impossible_question_is_refused(change, words):
    with pytest.raises(GenaugError, match=words):
        dataclasses.replace(QUESTION, **change)


# splits


def test_stages_see_training_images_only(monkeypatch, tmp_path):
    split = make_split(QUESTION, SETS, 0)
    assert set(split.train.ids) <= set(SETS["train"].ids)
    assert split.test.ids == SETS["test"].ids
    assert len(split.train) == 6
    planted = dataclasses.replace(split, train=split.test)
    bench = Run(dataclasses.replace(QUESTION, methods=("round-trip",)), SETS, object(), tmp_path, False)
    monkeypatch.setattr(experiment, "make_arm", lambda *_: None)
    augmenter = type(
        "Augmenter",
        (),
        {
            "name": "round-trip",
            "fresh": lambda self: self,
            "fit": lambda *_: pytest.fail("was fitted on test images"),
        },
    )()
    arm = type("Arm", (), {"text": "round-trip", "augmenter": augmenter, "budget": {}})()
    with pytest.raises(GenaugError, match="fitting round-trip.*a test image"):
        paint_arm(bench, arm, planted)


def test_a_folder_without_a_test_part_gives_a_stated_share():
    question = dataclasses.replace(QUESTION, test_fraction=0.25, shots=None)
    split = make_split(question, {"all": pool()}, 0)
    assert set(split.test.counts().values()) == {3.0}
    assert set(split.train.counts().values()) == {9.0}
    (note,) = split_notes(Run(question, {"all": pool()}, None, "."))
    assert "25%" in note
    assert "9 images" in note
    assert make_split(question, {"all": pool()}, 1).test.ids != split.test.ids


def test_too_few_images_for_the_shots_are_used_and_said():
    few = pool(12)[[0, 1, 2, 12, 13, 14, 15, 24, 25, 26]]
    question = dataclasses.replace(QUESTION, shots=4)
    split = make_split(question, {"train": few, "test": SETS["test"]}, 0)
    (note,) = split_notes(Run(question, {"train": few, "test": SETS["test"]}, None, "."))
    assert len(split.train) == 10
    assert "2 of 3 classes have fewer than 4" in note


def test_one_class_cannot_be_compared():
    left = pool(6, 1)
    with pytest.raises(GenaugError, match="at least two classes"):
        split_notes(Run(QUESTION, {"train": left, "test": pool(3, 1, 5, "exam")}, None, "."))


def test_a_long_tail_and_all_images():
    tail = make_split(dataclasses.replace(QUESTION, shots=None, imbalance_factor=4), SETS, 0)
    assert (
        sorted(tail.train.counts().values()) == [0.75 * 4, 3, 12]
        or len(set(tail.train.counts().values())) > 1
    )
    assert len(make_split(dataclasses.replace(QUESTION, shots=None), SETS, 0).train) == 36


def test_tuning_never_opens_the_test_part():
    class Sealed(dict):
        def __getitem__(self, key):
            return pytest.fail("the test part was opened") if key == "test" else super().__getitem__(key)

        def get(self, key, default=None):
            return self[key] if key in self else default  # noqa: SIM401

    question = dataclasses.replace(QUESTION, condition="validation", splits=(100, 101))
    split = make_split(question, Sealed(SETS), 100)
    assert set(split.test.ids) | set(split.train.ids) == set(SETS["train"].ids)
    assert not set(split.test.ids) & set(split.train.ids)


def test_an_unknown_part_to_examine_on():
    with pytest.raises(GenaugError, match="no part 'shifted'.*train, test"):
        make_split(dataclasses.replace(QUESTION, test_part="shifted"), SETS, 0)


# runs


def test_a_changed_setting_never_finds_an_old_result(tmp_path):
    bench = Run(QUESTION, SETS, None, tmp_path, False)
    split = bench.splits[0]
    path = bench.path(bench.arm("mixup"), split, 0)
    changed = [
        dataclasses.replace(bench, question=dataclasses.replace(QUESTION, **change)).path(
            bench.arm("mixup"), split, 0
        )
        for change in ({"updates": 3}, {"classifier": "residual"})
    ]
    others = [
        bench.path(bench.arm("mixup@alpha=0.3"), split, 0),
        bench.path(bench.arm("mixup"), split, 1),
        bench.path(bench.arm("mixup"), make_split(QUESTION, SETS, 1), 0),
        bench.path(bench.arm("original"), split, 0),
    ]
    assert len({path, *changed, *others}) == 7
    assert bench.path(bench.arm("mixup"), split, 0) == path


def test_arms_are_paired(monkeypatch, tmp_path):
    seen = []
    real_training = experiment.prepare_training
    monkeypatch.setattr(
        experiment,
        "prepare_training",
        lambda train, synthetic, preset, showing, seed, *rest: (
            seen.append((train.ids, seed, preset))
            or real_training(train, synthetic, preset, showing, seed, *rest)
        ),
    )
    list(
        run_experiment(
            Run(dataclasses.replace(QUESTION, splits=(0,), repeats=(0, 1)), SETS, None, tmp_path, False)
        )
    )
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from test_experiment import QUESTION, SETS, Run, compare, dataclasses
from genaug import experiment
slow = experiment.run_unit
def run_unit(*arguments):
    unit = slow(*arguments); print("finished", flush=True); __import__("time").sleep({pause}); return unit
experiment.run_unit = run_unit
compare(Run(QUESTION, SETS, None, {out!r}, False))
"""


def test_a_killed_comparison_continues_and_ends_the_same(tmp_path):
    """A process killed by signal 9 between two runs; what it had finished is not run again and the rows are
    those of an unbroken comparison."""
    code = SCRIPT.format(tests=str(ROOT / "tests"), out=str(tmp_path / "out"), pause=60)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "finished\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").glob("*.json")}
    assert len(stored) == 1
    assert not (tmp_path / "out" / "results.csv").exists()
    actual = compare(Run(QUESTION, SETS, None, tmp_path / "out", False))
    assert all(path.stat().st_mtime_ns == before for path, before in stored.items())
    unbroken = compare(Run(QUESTION, SETS, None, tmp_path / "unbroken", False))
    compared = [*KEY, "value", "n"]
    pd.testing.assert_frame_equal(actual.rows[compared], unbroken.rows[compared])
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 4
    assert missing_units(actual.rows, QUESTION.methods, QUESTION.splits, QUESTION.repeats) == []


def test_a_broken_result_file_is_run_again(tmp_path):
    actual = compare(Run(QUESTION, SETS, None, tmp_path, False))
    path = next((tmp_path / "runs").iterdir())
    path.write_text("{")
    again = compare(Run(QUESTION, SETS, None, tmp_path, False))
    assert Unit.load(path) is not None
    assert again.rows.value.equals(actual.rows.value)


def test_more_arms_and_splits_reuse_what_is_there(tmp_path):
    compare(Run(QUESTION, SETS, None, tmp_path, False))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    said = []
    actual = compare(
        Run(
            dataclasses.replace(QUESTION, methods=("original", "cutmix"), splits=(0, 1, 2)),
            SETS,
            None,
            tmp_path,
            False,
        ),
        say=said.append,
    )
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert len(list((tmp_path / "runs").iterdir())) == 4 + 4
    assert list(actual.summary.arm) == ["original", "cutmix"]
    assert set(actual.rows.method) == {
        "original",
        "cutmix",
    }
    assert any(line.startswith("Estimated cost:") for line in said)


def test_folders_of_something_else_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(GenaugError, match="not empty"):
        compare(Run(QUESTION, SETS, None, tmp_path / "full", False))
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("")
    with pytest.raises(GenaugError, match="is a file"):
        claim_comparison(tmp_path / "file", QUESTION, "toy")
    claim_comparison(tmp_path / "ours", QUESTION, "toy")
    with pytest.raises(GenaugError, match="the source changed"):
        claim_comparison(tmp_path / "ours", QUESTION, "elsewhere")
    (tmp_path / "ours" / "comparison.json").write_text("[]")
    with pytest.raises(GenaugError, match="damaged"):
        claim_comparison(tmp_path / "ours", QUESTION, "toy")


def test_the_estimate_counts_what_is_left(tmp_path):
    bench = Run(dataclasses.replace(QUESTION, repeats=(0, 1)), SETS, None, tmp_path, False)
    make_split(QUESTION, SETS, 0)
    assert (estimate(bench).runs, estimate(bench).updates) == (8, 16)
    list(run_experiment(Run(dataclasses.replace(QUESTION, splits=(0,)), SETS, None, tmp_path, False)))
    assert estimate(bench).runs == 4
    assert "classifiers" in estimate(bench).sentence()


def test_arms_that_share_a_set_have_it_painted_once_in_the_estimate(tmp_path):
    def cost(*methods):
        return estimate(
            Run(
                dataclasses.replace(QUESTION, methods=parse_methods(",".join(methods))),
                SETS,
                None,
                tmp_path,
                False,
            )
        )

    alone, both = cost("smote"), cost("smote", "smote+cutmix", "original")
    assert alone.images > 0
    assert (both.images, both.runs) == (alone.images, 3 * alone.runs)
    assert cost("smote", "smote@copies=2").images > alone.images
    small = "pixel-diffusion@num_inference_steps=3;pretrained=none;size=16;steps=2"
    painted = cost(small, f"{small}+mixup")
    assert painted.images == cost(small).images > 0
    assert painted.evaluations == 3 * painted.images
    assert painted.minutes > 0


def test_images_are_painted_once_and_shared(tmp_path):
    "The round trip on a closed-form backbone: with and without a mixer it is one set of images."
    from genaug.diffusion import ToyBackbone

    backbone = ToyBackbone.from_images(
        SETS["train"].batch(), SETS["train"].targets, SETS["train"].class_names
    )
    question = dataclasses.replace(
        QUESTION, methods=("original", "round-trip", "round-trip+mixup"), splits=(0,), copies=1
    )
    actual = compare(Run(question, SETS, backbone, tmp_path, False))
    sets = [path for path in (tmp_path / "synthetic" / "split-0").iterdir() if path.is_dir()]
    assert len(sets) == 1
    assert len(list((tmp_path / "synthetic" / "split-0").glob("*.json"))) == 2
    fed = [
        json.loads(text)["fed"]["synthetic"]
        for text, metric in zip(actual.rows.settings, actual.rows.metric)
        if metric == "accuracy"
    ]
    assert fed.count(0) == 1
    assert len(fed) == 3
    assert set(actual.rows.backbone) == {f"toy@{backbone.fingerprint()[:12]}"}


def test_tuning_uses_its_own_splits(tmp_path):
    table = tune(Run(dataclasses.replace(QUESTION, splits=(100, 101)), SETS, None, tmp_path, False))
    assert (table.splits == 2).all()
    assert sorted(path.stem for path in (tmp_path / "splits").iterdir()) == [
        "100",
        "101",
    ]
    assert not set(Manifest.load(tmp_path / "splits" / "100.json").test) & set(SETS["test"].ids)


# statistics


def rows_of(values):
    "{arm: {(split, seed): accuracy}} as rows."
    return pd.DataFrame(
        [
            checked_row(ROW | arm_fields(arm) | {"split": split, "seed": seed, "value": value})
            for arm, runs in values.items()
            for (split, seed), value in runs.items()
        ]
    )


def test_intervals_agree_with_scipy():
    from scipy import stats

    draw = np.random.default_rng(0)
    values = {
        arm: {(split, seed): draw.uniform(0.4, 0.6) for split in range(6) for seed in (0, 1)}
        for arm in ("original", "diff-ii")
    }
    summary = summarise(rows_of(values), ("original", "diff-ii"))
    by_split = {
        arm: np.array([np.mean([runs[split, seed] for seed in (0, 1)]) for split in range(6)])
        for arm, runs in values.items()
    }
    low, high = stats.t.interval(0.95, 5, by_split["diff-ii"].mean(), stats.sem(by_split["diff-ii"]))
    assert np.allclose(summary.loc[1, ["low", "high"]].astype(float), [low, high])
    paired = stats.ttest_rel(by_split["diff-ii"], by_split["original"]).confidence_interval(0.95)
    assert np.allclose(
        summary.loc[1, ["original low", "original high"]].astype(float), [paired.low, paired.high]
    )


def test_a_difference_uses_only_runs_that_both_arms_have():
    summary = summarise(
        rows_of({"original": {(0, 0): 0.5, (1, 0): 0.5}, "mixup": {(0, 0): 0.6, (1, 0): 0.7, (2, 0): 0.0}}),
        ("original", "mixup"),
    )
    assert summary.loc[1, "splits"] == 3
    assert np.isclose(summary.loc[1, "minus original"], 0.15)


def test_one_split_has_no_interval_and_says_so():
    table = written_summary(
        summarise(rows_of({"original": {(0, 0): 0.5}, "mixup": {(0, 0): 0.6}}), ("original", "mixup"))
    )
    assert table["mean, 95 % interval"].tolist() == ["50.0", "60.0"]
    assert table["minus original"].tolist() == [
        "–",
        "+10.0",
    ]


def test_rows_of_different_comparisons_are_not_averaged():
    mixed = pd.concat(
        [rows_of({"original": {(0, 0): 0.5}}), rows_of({"original": {(1, 0): 0.5}}).assign(scale="hour")]
    )
    with pytest.raises(GenaugError, match="mix different values of 'scale'"):
        summarise(mixed)


def test_the_bootstrap_is_paired_by_image():
    draw = np.random.default_rng(0)
    easy = draw.random(400) < 0.5
    control = {(0, 0): {f"i{number}": int(right) for number, right in enumerate(easy)}}
    better = {(0, 0): {f"i{number}": int(right or number < 20) for number, right in enumerate(easy)}}
    mean, low, high = bootstrap_difference(better, control)
    alone = bootstrap_difference(better, None)
    assert 0 < low < mean < high
    assert high - low < (alone[2] - alone[1]) / 2
    assert all(math.isnan(value) for value in bootstrap_difference({(5, 0): {"i1": 1}}, control))


@pytest.mark.parametrize(
    "name, network, weights",
    [
        ("letters", "letters", "embedded"),
        ("residual", "residual", None),
        ("few_shot_resnet50", "resnet50", "tv_in1k"),
        ("resnet18", "resnet18", None),
    ],
)
def test_what_a_classifiers_name_means(name, network, weights):
    preset = classifier_preset(name)
    assert (preset.network, preset.weights) == (network, weights)
    assert classifier_preset(name, "random").weights is None
