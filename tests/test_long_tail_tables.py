"""Long-tail and out-of-distribution tables: counts and budgets at paper scale, the printed numbers'
arithmetic, and what the notebooks ask and show, on rows that are made up."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from table_pages import executed

from genaug.arms import make_arm, parse_methods
from genaug.classifier import TrainingRun, train_classifier
from genaug.comparison import classifier_preset, condition_name
from genaug.core import LabeledImages
from genaug.data.splits import long_tail, long_tail_counts
from genaug.datasets import load
from genaug.experiment import Run
from genaug.long_tail_pages import baseline_grid, fed_share, swept
from genaug.metrics.classification import evaluate, part_of, size_groups
from genaug.results import arm_fields, put
from genaug.schedule import Showing, SwapTail, TrainingSchedule
from genaug.table_page import Shown, Table
from genaug.training_presets import training_preset

ROOT = Path(__file__).resolve().parent.parent
TABLES, PAPER = ROOT / "nbs" / "tables", ROOT / "nbs" / "results" / "paper"
NAMES = ("diff_ii_long_tail", "diff_ii_out_of_distribution", "generator_free_baselines", "size_and_copies")
CUB = {
    100: (1242, 1800, 62),
    20: (1798, 2800, 89),
    10: (2238, 3400, 111),
}  # photographs, updates of 200 epochs of batch 128, images per class at ten per photograph
PRINTED = {name: pd.read_csv(PAPER / f"{name}.csv") for name in NAMES[:2]}


@pytest.fixture(scope="module")
def questions():
    return {
        (name, scale): Table(name, scale).questions
        for name in NAMES
        for scale in ("seconds", "hour", "paper")
    }


def cub_like(factor):
    "A set with the class sizes of CUB-LT."
    targets = np.repeat(np.arange(200), long_tail_counts(5994 / 200, factor, 200))
    pixels = np.zeros((2, 2, 3), np.uint8)
    return LabeledImages(
        [pixels] * len(targets),
        targets,
        [f"bird {index:03d}" for index in range(200)],
        [f"{index}.png" for index in range(len(targets))],
    )


@pytest.mark.parametrize("factor", CUB)
def test_papers_budgets_at_cub_scale(factor, questions):
    real, (total, _, per_class) = cub_like(factor), CUB[factor]
    assert len(real) == total
    asked = [
        question
        for question in questions["diff_ii_long_tail", "paper"]
        if question.imbalance_factor == factor and question.data.startswith("cub ")
    ]
    assert len(asked) == 2
    for question in asked:
        bench = Run(question, {}, None, Path("nowhere"))
        wanted = {
            text: np.array(list(bench.budget(bench.arm(text)).wanted(real).values()))
            for text in question.methods
            if make_arm(text).augmenter is not None
        }
        sizes = real.labels.sum(0)
        own = wanted["diff-ii@naming.balanced=true;split_ratio=1"]
        # five for a class of one
        assert (own == 5 * sizes).all()
        assert own.min() == 5 * sizes.min()
        for name in ("real-gen", "real-filter", "real-guidance", "real-mix", "diff-aug", "diff-mix"):
            balanced = ";naming.balanced=true" if name in ("diff-aug", "diff-mix") else ""
            left = wanted[f"{name}@copies=10;even=true{balanced}"]
            # uniform over classes: 62 at IF 100
            assert left.sum() == 10 * total
            assert set(left) <= {
                per_class,
                per_class + 1,
            }


@pytest.mark.parametrize("factor", (100, 20, 10))
def test_all_arms_of_the_embedded_tables_get_the_same_number_per_class(factor, questions):
    real = long_tail(load("digit-scenes")["train"], factor, 0)
    assert len(real) == {100: 196, 20: 271, 10: 326}[factor]
    (question,) = [item for item in questions["diff_ii_long_tail", "hour"] if item.imbalance_factor == factor]
    bench = Run(question, {}, None, Path("nowhere"))
    assert question.use == "swap_tail"
    assert question.classifier == "tiny_lt"
    for text in question.methods:
        arm = bench.arm(text)
        if arm.augmenter is None:
            continue
        wanted = list(bench.budget(arm).wanted(real).values())
        assert arm.use.word == "swap_tail"
        assert arm.use.replace == 0.5
        assert (
            wanted == [5 * size for size in real.counts().values()]
            if "copies=5" in text
            else sum(wanted) == len(real) and max(wanted) - min(wanted) <= 1
        )


def recorded_runs(monkeypatch, real, synthetic, preset, arms):
    "What `train_classifier` would do for each arm: updates, slots of the first update, the last epoch."
    monkeypatch.setattr(TrainingRun, "loop", lambda run, checkpoint, progress: [])
    monkeypatch.setattr(
        TrainingRun,
        "account",
        lambda run: (run.updates, len(run.rows(0)), run.rows(run.updates - 1)[-1].epoch),
    )
    monkeypatch.setattr("genaug.classifier.make_network", lambda *settings: torch.nn.Linear(1, 1))
    for arm in arms:
        yield train_classifier(real, synthetic if arm.use else None, preset, arm.showing).shown


@pytest.mark.parametrize("factor", CUB)
@pytest.mark.parametrize("preset", ("lt_diffmix", "lt_diffii"))
def test_every_arm_makes_the_same_updates_at_cub_scale(factor, preset, questions, monkeypatch):
    real = cub_like(factor)
    synthetic = LabeledImages(
        [real.image(0)] * 400,
        np.tile(np.arange(200), 2),
        real.class_names,
        [f"row {index}" for index in range(400)],
    )
    question = next(
        item
        for item in questions["diff_ii_long_tail", "paper"]
        if item.imbalance_factor == factor
        and item.classifier.partition("@")[0] == preset
        and item.data.startswith("cub ")
    )
    arms = [
        make_arm(text, use=question.use)
        for text in ("original", "oversampling", "cmo+drw", "diff-mix", "diff-ii+cmo+drw")
    ]
    assert set(recorded_runs(monkeypatch, real, synthetic, classifier_preset(question.classifier), arms)) == {
        (CUB[factor][1], 128, 199)
    }


def test_the_two_recipes_differ_where_the_brief_says():
    first, second = training_preset("lt_diffmix"), training_preset("lt_diffii")
    assert (first.label_smoothing, first.weight_decay, first.schedule) == (0.0, 2e-4, "stairs")
    assert (
        second.label_smoothing,
        second.weight_decay,
        second.schedule,
    ) == (0.1, 5e-4, "cosine")
    assert (first.network, first.batch_size, first.epochs, first.learning_rate, first.view) == (
        second.network,
        second.batch_size,
        second.epochs,
        second.learning_rate,
        second.view,
    )


def test_the_share_of_slots_in_the_notebook_is_the_feeders():
    real = long_tail(load("digit-scenes")["train"], 100, 0)
    counts = np.array(list(real.counts().values()))
    assert counts.tolist() == long_tail_counts([88] * 10, 100).tolist()
    synthetic = LabeledImages(
        [real.image(0)] * 20,
        np.tile(np.arange(10), 2),
        real.class_names,
        [f"row {index}" for index in range(20)],
    )
    schedule = TrainingSchedule(real, synthetic, 3, Showing(SwapTail()), epochs=60)
    labels = {f"real:{name}": target for name, target in zip(real.ids, real.targets)} | {
        f"synthetic:{name}": target for name, target in zip(synthetic.ids, synthetic.targets)
    }
    seen = np.bincount(
        [labels[row.shown] for epoch in range(60) for row in schedule.plan(epoch).rows], minlength=10
    ) / (60 * len(real))
    wanted = fed_share(counts, 0.5)
    assert abs(wanted.sum() - 1) < 1e-9
    assert (abs(seen - wanted) < 5 * np.sqrt(wanted / (60 * len(real)))).all()


@pytest.mark.parametrize("name", NAMES[:2])
def test_printed_numbers_have_the_columns_of_the_other_table(name):
    table = PRINTED[name]
    assert list(table.columns) == list(pd.read_csv(PAPER / "diff_ii_few_shot.csv").columns)
    assert set(table.table) == {name}
    assert not table.duplicated(["data", "method", "metric"]).any()
    assert set(table.method) <= set(parse_methods(",".join(table.method)))


def test_printed_averages_of_the_long_tail_table():
    wide = PRINTED["diff_ii_long_tail"].pivot(index="method", columns="data", values="value")
    for birds in ("cub", "flower"):
        assert (
            abs(
                wide[[f"{birds} IF={factor}" for factor in (100, 20, 10)]].mean(axis=1)
                - wide[f"{birds} average"]
            )
            < 0.0051
        ).all()
    ours, theirs = wide.loc["diff-ii"], wide.loc["diff-mix"]
    assert [
        round(ours[f"cub {column}"] - theirs[f"cub {column}"], 2) for column in ("average", "IF=10", "IF=100")
    ] == [3.60, 5.80, 0.86]  # as version 2 says in prose
    assert len(wide) == 7
    assert wide.notna().all(axis=None)


def test_printed_averages_of_the_out_of_distribution_table_are_unweighted():
    table = PRINTED["diff_ii_out_of_distribution"]
    cells, means = (
        table[table.metric == "accuracy"].pivot(index="method", columns="data", values="value"),
        table[table.metric == "group_mean_accuracy"].set_index("method").value,
    )
    assert cells.shape == (8, 4)
    assert (abs(cells.mean(axis=1) - means) < 0.0051).all()
    sizes = pd.Series(
        {
            "waterbirds land-land": 2255,
            "waterbirds land-water": 2255,
            "waterbirds water-land": 642,
            "waterbirds water-water": 642,
        }
    )
    assert (
        abs((cells * sizes).sum(axis=1)["diff-ii"] / sizes.sum() - 48.50) < 0.01
    )  # what the weighted mean would be
    assert round(means["diff-ii"] - means["original"], 2) == 11.39
    assert (
        round(
            cells.loc["diff-ii", "waterbirds water-land"] - cells.loc["diff-aug", "waterbirds water-land"], 2
        )
        == 3.45
    )


def test_our_group_mean_is_unweighted():
    truth = np.eye(2)[[0] * 8 + [1] * 2]
    answers = np.eye(2)[[0] * 8 + [0, 1]]
    rows = {
        (row.metric, row.part): row.value
        for row in evaluate(answers, truth, "single", ("land", "water"), ["a, x"] * 8 + ["b, x"] * 2)
    }
    assert rows["accuracy", ""] == 0.9
    assert rows["group_mean_accuracy", ""] == 0.75
    assert rows["worst_group_accuracy", ""] == rows["accuracy", part_of(group="b, x")] == 0.5


def test_the_arms_of_the_notebooks_are_canonical_and_can_be_built(questions):
    for (name, scale), asked in questions.items():
        for question in asked:
            assert parse_methods(",".join(question.methods)) == list(question.methods), (name, scale)
            for text in question.methods:
                make_arm(text, suffixes=question.suffixes, use=question.use)
        keys = [
            (question.data, condition_name(question), classifier_preset(question.classifier).network)
            for question in asked
        ]
        assert len(set(keys)) == len(keys), (
            f"{name}, {scale}: rows of two comparisons would replace each other"
        )
        assert scale != "hour" or all(len(question.splits) >= 3 for question in asked)


def test_the_out_of_distribution_table_shares_the_few_shot_tables_arms(questions):
    parts = Table("diff_ii_few_shot").parts("hour")
    asked = [part.question for part in parts if part.question.condition == "natural"]
    few = {
        method
        for question in asked
        if (question.shots, question.classifier) == (5, "letters")
        for method in question.methods
    }
    natural, correlated = questions["diff_ii_out_of_distribution", "hour"]
    assert set(natural.methods) <= few
    assert natural.methods == correlated.methods
    assert (natural.shots, natural.repeats) == (5, (0, 1))
    assert {natural.test_part, correlated.test_part} == {"shifted"}
    assert (
        natural.condition,
        correlated.condition,
    ) == ("natural", "correlated")


def test_every_baseline_of_the_issue_has_a_row(questions):
    few, tail = questions["generator_free_baselines", "hour"]
    for head in ("", "diff-aug+", "diff-ii+"):
        assert {
            head + name for name in ("strong-augmentation", "mixup", "cutmix", "augmix", "smote", "cmo")
        } <= set(few.methods) & set(tail.methods)
        assert {head + name for name in ("drw", "cmo+drw", "oversampling")} <= set(tail.methods)
    assert {"oversampling+strong-augmentation", "diff-ii+strong-augmentation+oversampling"} <= set(
        tail.methods
    )
    assert not any("drw" in text or "oversampling" in text for text in few.methods)
    assert tail.use == "swap_tail"
    assert make_arm("smote@fill=true;use=append", use=tail.use).use.word == "append"


def made_up_rows(question, value):
    "One row per run and quantity; `value(arm, split, what)` is a share."
    for arm in question.methods:
        for split in question.splits:
            for seed in question.repeats:
                shared = {
                    "table": question.table,
                    "scale": question.scale,
                    "data": question.data,
                    "condition": condition_name(question),
                    "backbone": "tiny@0",
                    "classifier": "letters@0",
                    "split": split,
                    "seed": seed,
                    "n": 100,
                } | arm_fields(arm)
                parts = [
                    ("accuracy", ""),
                    ("group_mean_accuracy", ""),
                    ("worst_group_accuracy", ""),
                    ("accuracy", part_of(group="digits 0-4, outdoors")),
                ]
                if question.imbalance_factor:
                    parts += [
                        ("accuracy", part_of(shots=group))
                        for group in size_groups(long_tail_counts([88] * 10, question.imbalance_factor))
                    ]
                for metric, part in parts:
                    yield shared | {
                        "metric": metric,
                        "part": part,
                        "value": value(arm, split, part or metric),
                    }


@pytest.fixture(scope="module")
def shown(questions, tmp_path_factory):
    """What the notebooks print on complete made-up rows: every arm but `original` gains 10 points, 20 on
    one-image classes."""
    import contextlib
    import io

    results = tmp_path_factory.mktemp("project") / "results"

    def value(arm, split, what):
        return 0.3 + 0.05 * split + (0 if arm == "original" else 0.2 if what == "shots=one" else 0.1)

    for name in NAMES:
        put(
            [row for question in questions[name, "hour"] for row in made_up_rows(question, value)],
            results / f"{name}.csv",
        )
    sizes = dict(zip(load("digit-scenes")["train"].class_names, long_tail_counts([88] * 10, 100)))
    tail = questions["diff_ii_long_tail", "hour"][0]
    points = [
        row
        | {
            "metric": "sensitivity",
            "part": part_of(class_=name),
            "value": size / 100 + (0.05 if row["method"] == "diff-ii" else 0),
        }
        for row in made_up_rows(tail, value)
        if (row["metric"], row["part"]) == ("accuracy", "")
        for name, size in sizes.items()
    ]
    put(points, results / "points" / "diff_ii_long_tail.csv")
    texts, spaces = {}, {}
    for name in NAMES:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            spaces[name] = executed(name, until_run=False, scale="hour", results=str(results))
        texts[name] = text.getvalue()
    return texts, spaces


def line_of(text, start, heading):
    "The first line that begins with an arm, after a heading."
    lines = text[text.index(heading) :].splitlines()
    return next(line for line in lines if line.split()[:1] == [start])


@pytest.mark.parametrize("name", NAMES)
def test_complete_tables_have_nothing_missing(name, shown, questions):
    page = Shown(Table(name, "hour", results=shown[1][name]["results"]))
    assert page.missing() == []
    assert [part.question for part in page.parts()] == questions[name, "hour"]


def test_the_long_tail_notebook_shows_paired_gains(shown):
    text = shown[0]["diff_ii_long_tail"]
    assert "+10.0 [+10.0, +10.0]" in line_of(text, "diff-mix", "hour: IF 100\n")
    assert "+10.0 [+10.0, +10.0]" in line_of(text, "cmo+drw", "average over 3 imbalance factors")
    by_size = text[text.index("gain on 'one'") :]
    assert "+20.0 [+20.0, +20.0]" in line_of(by_size, "diff-ii", "gain on 'one'")
    assert "gain on 'few'" in by_size
    assert "gain on 'medium'" in by_size


def test_the_out_of_distribution_notebook_shows_both_conditions(shown):
    text = shown[0]["diff_ii_out_of_distribution"]
    for heading in ("natural\n", "natural, worst group", "correlated\n", "correlated, worst group"):
        assert "+10.0 [+10.0, +10.0]" in line_of(text, "diff-ii", f"hour: {heading}")
    assert "digits 0-4, outdoors" in text


def test_the_baselines_are_compared_within_their_column(shown):
    text = shown[0]["generator_free_baselines"]
    for heading in ("hour: 5 images per class\n", "hour: long tail, IF 100\n"):
        line = line_of(text, "mixup", heading)
        # alone against the photographs, on top against the same generator
        assert line.count("+10.0 [+10.0, +10.0]") == 1
        assert line.count("+0.0 [") == 2
    assert "+20.0 [" in line_of(text, "mixup", "classes with one photograph")


def test_the_sizes_of_the_curve_come_from_the_data(shown):
    sizes = shown[1]["size_and_copies"]["sizes"]
    counts = [1, 2, 4, 8, 15, 27, 49, 88]
    assert sorted(int(arm.partition(", ")[2]) for arm in sizes.arms if arm.startswith("original")) == counts
    assert all(np.allclose(sizes.runs[f"original, {size}"], size / 100) for size in counts)
    assert np.allclose(sizes.runs["diff-ii, 88"], 0.93)


def test_every_arm_of_the_baselines_has_a_cell_in_the_grid(questions):
    for scale in ("seconds", "hour", "paper"):
        for question in questions["generator_free_baselines", scale]:
            grid = baseline_grid(question.methods, ("diff-aug", "diff-ii"))
            assert sorted(arm for row in grid.values() for arm in row.values()) == sorted(question.methods)
            assert list(grid["nothing"]) == ["alone", "diff-aug", "diff-ii"]
            full = [row for row in grid.values() if len(row) == 3]
            assert len(full) == (7 if question.shots else 11)


def test_every_painted_arm_of_the_copies_lies_on_a_line(questions):
    for scale in ("seconds", "hour", "paper"):
        for question in questions["size_and_copies", scale]:
            lines = swept(question.methods, "copies")
            arms = [arm for points in lines.values() for _, arm in points]
            assert ["original", "strong-augmentation", *arms] == list(question.methods)
