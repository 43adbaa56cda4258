"""Presets of the scale `paper`: their numbers against facts copied by hand from the papers, the refusals of
`genaug reproduce`,
the dry run, and the promise that `seconds` and `hour` ask what they asked before presets existed."""

import json
import sys
from pathlib import Path

import hour_questions
import pytest
from table_pages import executed

from genaug import cli, presets
from genaug.arms import make_arm, parse_arm, parse_methods
from genaug.commands.effort import efforts_of, find_table, stand_in, table_questions
from genaug.comparison import Comparison
from genaug.messages import GenaugError
from genaug.presets import Given, find_data, missing, read_cells, refuse_missing
from genaug.shift_pages import setting_series
from genaug.suffixes import published_suffixes
from genaug.table_page import Table
from genaug.tables import paper_question
from genaug.training_presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
OWN = {"photographs_first_look"}  # tables that repeat no paper
TABLES = sorted(path.stem for path in (ROOT / "nbs" / "tables").glob("[!_]*.ipynb") if path.stem not in OWN)
BEFORE = json.loads((Path(__file__).parent / "hour_questions.json").read_text(encoding="utf-8"))

# Copied by hand. Diff-II: sections 4.1 to 4.3, A.3, A.5; learning rates, epochs and batches: the code of
# Diff-Mix and Diff-II.
RESNET_RATE = {"cub": 0.05, "aircraft": 0.10, "cars": 0.10, "pet": 0.01}
VIT_RATE = {"cub": 1e-3, "aircraft": 1e-3, "cars": 1e-3, "pet": 1e-4}
METACLASS = {
    "cub": "bird",
    "aircraft": "aircraft",
    "cars": "car",
    "pet": "animal",
    "flowers": "flower",
    "waterbirds": "bird",
}
SPLIT_RATIO = {5: "0.3", 10: "0.1"}
FIRST_SUFFIX = {
    "cub": {5: "standing on a tree branch", 10: "flying over water"},
    "cars": {5: "parked on a city street", 10: "parked on a road"},
    "aircraft": {5: "parked on the runway", 10: "flying in the sky with landing gear down"},
    "pet": {5: "lying on a pillow on the floor", 10: "laying down in the grass"},
}
TAIL_SUFFIX = {
    ("cub", 100): "flying in the sky with its wings spread",
    ("cub", 20): "sitting on a rock in the water",
    ("cub", 10): "flying over the ocean",
    ("flowers", 100): "with water droplets on it",
    ("flowers", 20): "close-up with a dark background",
    ("flowers", 10): "with water droplets on it",
}
TAIL_COUNT = {100: 1242, 20: 1798, 10: 2238}  # photographs of CUB-LT


def fields(cell, method):
    "The settings of the first arm of a method."
    return next(dict(arm.settings) for text in cell.methods if (arm := parse_arm(text)).method == method)


@pytest.mark.parametrize("cell", read_cells("diff_ii_few_shot"), ids=lambda cell: cell.cell)
def test_few_shot_cells_are_what_the_paper_prints(cell):
    name, shots, vit = cell.data.name, cell.shots, cell.cell.endswith("vit")
    preset = cell.preset()
    assert (cell.copies, cell.replace, cell.splits) == (5, 0.5, (0, 1, 2))
    assert str(fields(cell, "diff-ii")["split_ratio"]) == SPLIT_RATIO[shots]
    assert cell.suffix_texts()[0] == FIRST_SUFFIX[name][shots]
    assert cell.data.metaclass == METACLASS[name]
    assert preset.learning_rate == (VIT_RATE if vit else RESNET_RATE)[name]
    assert (preset.epochs, preset.batch_size, preset.view.size) == (
        (100, 32, 384) if vit else (120, 256, 224)
    )
    assert (preset.network, preset.weights) == (
        ("vit_base_patch16_384", "augreg_in21k_ft_in1k") if vit else ("resnet50", "tv_in1k")
    )
    assert (preset.optimizer, preset.momentum, preset.weight_decay, preset.label_smoothing) == (
        "sgd",
        0.9,
        5e-4,
        0.1,
    )


def test_few_shot_has_the_sixteen_cells_of_table_1():
    cells = read_cells("diff_ii_few_shot")
    assert len({(cell.data.name, cell.shots, cell.network.name) for cell in cells}) == len(cells) == 4 * 2 * 2
    assert {
        "original",
        "mixup",
        "cutmix",
        "real-filter",
        "real-guidance",
        "real-mix",
        "da-fusion",
        "diff-aug",
        "diff-mix",
    } < set(cells[0].methods)


@pytest.mark.parametrize("cell", read_cells("diff_ii_long_tail"), ids=lambda cell: cell.cell)
def test_long_tail_cells_are_what_the_paper_prints(cell):
    preset, recipe = cell.preset(), cell.classifier
    assert (cell.copies, cell.replace, cell.use, cell.shots) == (5, 0.5, "swap_tail", None)
    assert cell.suffix_texts()[0] == TAIL_SUFFIX[cell.data.name, cell.imbalance_factor]
    assert cell.data.metaclass == METACLASS[cell.data.name]
    assert (preset.learning_rate, preset.epochs, preset.batch_size, preset.network) == (
        0.005,
        200,
        128,
        "resnet50",
    )
    assert (preset.weight_decay, preset.label_smoothing) == {
        "lt_diffmix": (2e-4, 0.0),
        "lt_diffii": (5e-4, 0.1),
    }[recipe]
    assert str(fields(cell, "diff-ii")["split_ratio"]) == "1"


def test_long_tails_learn_their_concepts_from_balanced_classes():
    cells = [*read_cells("diff_ii_long_tail"), *read_cells("generator_free_baselines", ["cub IF*"])]
    for text in {text for cell in cells for text in cell.methods}:
        augmenter = make_arm(text).augmenter
        if augmenter is not None and augmenter.name in ("diff-aug", "diff-mix", "diff-ii"):
            assert augmenter.naming.balanced is True, text
    for cell in read_cells("diff_ii_few_shot"):
        assert (
            make_arm(
                next(text for text in cell.methods if text.startswith("diff-ii"))
            ).augmenter.naming.balanced
            is False
        )


@pytest.mark.parametrize("factor", TAIL_COUNT)
def test_the_stand_in_of_cub_lt_has_its_photographs(factor):
    cell = read_cells("diff_ii_long_tail", [f"cub IF={factor} lt_diffii"])[0]
    assert len(stand_in(cell)) == TAIL_COUNT[factor]


def test_the_other_tables():
    shifted = read_cells("diff_ii_out_of_distribution")[0]
    assert (shifted.test_part, shifted.data.format, shifted.shots, shifted.network.name) == (
        "shifted",
        "cub-waterbirds",
        5,
        "resnet50",
    )
    assert read_cells("diff_ii_components")[0].cell == "aircraft 5-shot resnet50"
    assert {measure.metric for measure in read_cells("diff_ii_components")[0].measures} == {
        "clip_score",
        "lpips",
    }
    lesions = read_cells("genmix_lesions")[0].preset()
    assert (lesions.network, lesions.epochs, lesions.batch_size, lesions.learning_rate, lesions.patience) == (
        "vgg16",
        100,
        8,
        2e-4,
        20,
    )
    assert sum(read_cells("genmix_lesions")[0].data.class_counts) == 681
    chests = read_cells("feature_space_long_tail")[0]
    assert chests.network.name == "densenet121"
    assert {measure.images for measure in chests.measures} == {1000}
    assert all(
        "num_inference_steps=75" in text
        for text in chests.methods
        if text.startswith(("feature-space", "real-gen"))
    )
    study = read_cells("feature_aligned")[0].study
    assert (study["draws"], study["per_class"], study["num_inference_steps"], study["left_out"]) == (
        (15, 15),
        10,
        999,
        ("empty",),
    ) or list(study["draws"]) == [15, 15]
    assert [(measure.metric, measure.size) for measure in read_cells("feature_aligned")[0].measures] == [
        ("ssim", 64)
    ]
    assert [measure.metric for measure in read_cells("genmix_tsne")[0].measures] == ["tsne"]
    expert = {cell.network.name: cell.training for cell in read_cells("feature_aligned_expert")}
    assert expert["resnet50"] == {"learning_rate": 1e-4, "epochs": 15, "batch_size": 64}


@pytest.mark.parametrize("table", TABLES)
def test_every_cell_can_be_asked_and_says_where_it_comes_from(table):
    cells = read_cells(table)
    assert cells
    assert len({cell.cell for cell in cells}) == len(cells)
    for cell in cells:
        assert cell.source
        assert all(cell.source.values())
        assert cell.data.source
        assert all(network.source for network in (*cell.networks, *cell.measures))
        if not cell.study.get("runs"):
            assert [text for arm in cell.methods for text in parse_methods(arm)] == list(cell.methods)
        for text in cell.methods:
            make_arm(text, replace=cell.replace)
        if cell.classifier:
            assert cell.classifier in PRESETS
            assert PRESETS[cell.classifier].network == cell.network.name
            question = paper_question(cell)
            assert isinstance(question, Comparison)
            assert question.scale == "paper"
            assert question.data.split()[0] == cell.data.name
        if cell.suffixes:
            assert len(published_suffixes(cell.suffixes)) >= 5


@pytest.mark.parametrize("table", TABLES)
def test_a_notebook_asks_the_cells_of_its_presets(table, tmp_path):
    questions, _ = table_questions(find_table(table), {"scale": "paper", "results": str(tmp_path)})
    cells = read_cells(table)
    assert len(questions) == len(cells)
    for question, cell in zip(questions, cells):
        if isinstance(question, Comparison):
            assert question.methods == tuple(cell.methods)
            assert question.data == cell.rows
            assert question.classifier == cell.trained_with
            assert (question.copies, question.replace, question.even, question.use) == (
                cell.copies,
                cell.replace,
                cell.even,
                cell.use,
            )


@pytest.mark.parametrize("table", ["diff_ii_split_ratio", "diff_ii_strength"])
def test_every_painted_arm_of_a_sweep_lies_on_a_line(table):
    lines = executed(table)["swept"]
    for scale in ("seconds", "hour", "paper"):
        for question in Table(table, scale).questions:
            series = setting_series(question.methods, lines)
            arms = [arm for points in series.values() for _, arm in points]
            assert {"original", "round-trip", *arms} == set(question.methods)


@pytest.mark.parametrize("table", TABLES)
def test_seconds_and_hour_ask_what_they_asked(table):
    assert {
        scale: {name: text for name, text in BEFORE[table][scale].items() if name != "units"}
        for scale in BEFORE[table]
    } == {scale: hour_questions.digest(table, scale) for scale in BEFORE[table]}


@pytest.mark.slow
@pytest.mark.parametrize("table", ["diff_ii_few_shot", "diff_ii_long_tail", "genmix_lesions"])
def test_the_names_of_hour_runs_are_those_of_before(table):
    assert hour_questions.digest(table, "hour", units=True) == BEFORE[table]["hour"]


def test_what_is_missing_is_named_with_its_cells():
    cells = read_cells("diff_ii_few_shot")
    with pytest.raises(GenaugError) as error:
        refuse_missing(cells, Given({"cub": "cub:x"}, "SD", {"resnet50": "random"}))
    text = str(error.value)
    assert (
        "--data pet=FOLDER (Oxford-IIIT Pet) for pet 5-shot resnet50, pet 10-shot resnet50, pet 5-shot "
        "vit, pet 10-shot vit" in text
    )
    assert "--classifier-weights vit_base_patch16_384=FILE" in text
    assert "resnet50=FILE" not in text
    assert "--backbone" not in text
    only = read_cells("diff_ii_few_shot", ["cub 5-shot resnet50"])
    assert missing(only, Given({"cub": "cub:x"}, "SD", {"resnet50": "random"})) == {}


@pytest.mark.parametrize("table", TABLES)
def test_paper_refuses_the_embedded_parts(table, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["reproduce", table, "--scale", "paper"]) == 2
    heard = capsys.readouterr()
    assert "nothing stands in for the paper's photographs" in heard.err
    assert heard.err.count("\n") == 1
    assert all(cell.data.title in heard.err for cell in read_cells(table))
    assert " ... " not in heard.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words, said",
    [
        (["--cells", "cub 6-shot"], "has no cell 'cub 6-shot'"),
        (["--data", "dogs=x"], "No cell needs data named 'dogs'"),
        (["--data", "no/such/folder"], "neither NAME=SOURCE nor a folder"),
        (["--classifier-weights", "tv_in1k"], "NAME=VALUE"),
        (["--backbone", "tiny"], "the embedded backbone 'tiny'"),
    ],
)
def test_refusals_of_reproduce(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CUB_200_2011").mkdir()
    (tmp_path / "CUB_200_2011" / "images.txt").write_text("")
    full = {
        "--data": "cub=CUB_200_2011",
        "--backbone": "SD",
        "--classifier-weights": "resnet50=random",
        "--cells": "cub 5-shot resnet50",
    }
    given = [part for option, value in full.items() if option not in words for part in (option, value)]
    assert cli.run(["reproduce", "diff_ii_few_shot", "--scale", "paper", *given, *words]) == 2
    assert said.lower() in capsys.readouterr().err.lower()


def test_weights_that_are_not_there_are_refused(tmp_path):
    components = read_cells("diff_ii_components")
    given = Given(
        {"aircraft": "fgvc-aircraft:x"},
        "SD",
        {"resnet50": "random"},
        {"clip": str(tmp_path), "lpips": str(tmp_path / "none.pth")},
    )
    with pytest.raises(GenaugError, match="is no CLIP model"):
        refuse_missing(components, given)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(GenaugError, match="lpips=.* are not there"):
        refuse_missing(components, given)
    with pytest.raises(GenaugError, match="does not exist"):
        presets.check_networks(components, Given(classifier_weights={"resnet50": "no/such/file.safetensors"}))


def test_a_folder_of_data_sets_is_searched(tmp_path):
    import paper_world

    data = paper_world.build_data(tmp_path)
    for table in TABLES:
        cells = read_cells(table)
        actual = find_data([str(data)], cells)
        assert set(actual) == {cell.data.name for cell in cells}
        for cell in cells:
            presets.check_data(cell.data, actual[cell.data.name])


@pytest.mark.parametrize("table", TABLES)
def test_a_dry_run_counts_and_writes_nothing(table, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rates = ["--seconds-per-evaluation", "0.02", "--seconds-per-update", "0.1"]
    assert cli.run(["reproduce", table, "--scale", "paper", "--dry-run", *rates]) == 0
    said = capsys.readouterr().out
    assert "In all" in said
    assert "hours" in said
    assert said.count("To name: --data") == len({cell.data.name for cell in read_cells(table)})
    assert list(tmp_path.iterdir()) == []


def test_the_dry_run_counts_what_the_paper_needs(tmp_path):
    """5,000 images of the paper's 1,000 birds for each arm with a set; 35,000 steps of two photographs for a
    concept."""
    cell = read_cells("diff_ii_few_shot", ["cub 5-shot resnet50"])
    questions, names = table_questions(
        find_table("diff_ii_few_shot"),
        {
            "scale": "paper",
            "cells": ["cub 5-shot resnet50"],
            "results": str(tmp_path),
            "methods": ["original", "diff-ii@split_ratio=0.3", "diff-aug"],
        },
    )
    effort = efforts_of(questions, names, cell)[0]
    assert (effort.images, effort.steps, effort.work) == (3 * 2 * 5000, 3 * 35_000, 3 * 35_000 * 2 * 3)
    # an inversion of 25 steps for each photograph
    assert effort.evaluations == 3 * (5000 * 50 + 1000 * 25 + 5000 * 50)
    assert (effort.runs, effort.updates) == (9, 9 * 120 * (1000 // 256))


def test_a_dry_run_of_the_hour(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        cli.run(
            [
                "reproduce",
                "diff_ii_split_ratio",
                "--scale",
                "hour",
                "--dry-run",
                "--seconds-per-evaluation",
                "0.01",
                "--seconds-per-update",
                "0.1",
            ]
        )
        == 0
    )
    assert "digit-scenes 5-shot (8 arms): 48 classifiers, 7,200 updates" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])


@pytest.mark.parametrize("table", sorted(OWN))
def test_a_table_of_our_own_has_no_scale_paper(table, capsys, tmp_path):
    assert cli.run(["reproduce", table, "--scale", "paper", "--out", str(tmp_path / "out")]) == 2
    assert "repeats no paper: use --scale seconds or hour" in capsys.readouterr().err
