"""What `paper` scale would do, without its data and weights. First, every method planned with its own
settings on a miniature of CUB (200 classes, five images each); rows, labels and denoiser evaluations agree
with the briefs. Then a rehearsal: the table notebooks at `paper` on miniatures of the published layouts, with
full-size classifiers and a diffusion model of real parts."""

import dataclasses
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paper_world
import pytest
from toy_sets import noise_set

from genaug import alignment, comparison, expert_page, presets, tables
from genaug.alignment import AlignmentStudy
from genaug.arms import make_arm, naming_parts, tiny_settings
from genaug.choices import ClassName
from genaug.core import LabeledImages
from genaug.diffusion import ToyBackbone
from genaug.evaluators import find_evaluators
from genaug.methods import feature_aligned
from genaug.networks import Normalized, make_network
from genaug.plans import Budget
from genaug.registry import find_method, groups
from genaug.results import read_rows
from genaug.training_presets import training_preset

CLASSES, SHOTS = 200, 5
AUGMENTERS = [
    name
    for name in dict.fromkeys((*groups()["diff-ii-family"], *groups()["newer"], *groups()["aligned"]))
    if find_method(name).kind == "augmenter"
]
PLANNED = {}
STEPS_OF_25 = {0.1: 2, 0.25: 6, 0.5: 12, 0.7: 17, 0.75: 18, 0.9: 22, 1.0: 25}  # section 1 of the brief


@pytest.fixture(scope="module")
def cub():
    targets = np.repeat(np.arange(CLASSES), SHOTS)
    names = [f"{index + 1:03d}.Bird_{index}" for index in range(CLASSES)]
    ids = [f"{names[target]}/{index}.png" for index, target in enumerate(targets)]
    real = noise_set(targets, names, size=4, ids=ids)
    return real, ToyBackbone.from_images(real.batch(), real.targets, names)


def planned(name, cub, **changes):
    "A method, its plan and its cost; a plan is made once per method and setting."
    key = (name, *sorted(changes.items()))
    if key not in PLANNED:
        PLANNED[key] = plan_of(name, cub, **changes)
    return PLANNED[key]


def plan_of(name, cub, **changes):
    real, backbone = cub
    augmenter = (
        make_arm(name, backbone, suffixes=("on a branch", "in flight"))
        .augmenter.having(naming=ClassName(), **changes)
        .fit(real)
    )
    rows = [row for row in augmenter.plan(real, Budget(5), 0) if row.round == 0]
    return augmenter, rows, augmenter.evaluations(rows)


@pytest.mark.parametrize("name", AUGMENTERS)
def test_five_images_per_photograph_are_planned(name, cub):
    augmenter, rows, _ = planned(name, cub)
    wanted = {row.group or row.id for row in rows}
    assert len(wanted) == 5 * CLASSES * SHOTS
    assert len(rows) == 5 * CLASSES * SHOTS * augmenter.start.alternatives
    labels = np.array([row.label for row in rows])
    assert np.allclose(labels.sum(1), 1, atol=1e-5)
    assert {row.settings["anchor"] for row in rows} == set(cub[0].ids)


@pytest.mark.parametrize(
    "name, changes, per_image",
    [
        # neighbours, section 2
        ("real-guidance", {}, 4),
        ("diff-mix", {"strengths": (0.7,)}, 34),
        ("da-fusion", {"strengths": (0.9,)}, 44),
        ("diff-aug", {"strengths": (0.9,)}, 44),
        ("diff-aug", {}, 50),
        ("diff-gen", {}, 50),
        ("real-gen", {}, 50),
        ("genie", {}, 80),
        ("genie-ada", {}, 350),
        ("datadream", {}, 100),
        ("loft", {}, 100),
        ("round-trip", {}, 0),
        ("fine-tuned", {}, 999),
        ("feature-aligned", {}, 999),
    ],
)  # one evaluation per level, without guidance
def test_an_image_costs_what_the_brief_says(name, changes, per_image, cub):
    _, rows, count = planned(name, cub, **changes)
    assert count == per_image * len({row.group or row.id for row in rows})


def test_diff_ii_inverts_every_photograph_once(cub):
    _, rows, count = planned("diff-ii", cub)
    assert count == 50 * len(rows) + 25 * CLASSES * SHOTS == 55 * len(rows)


@pytest.mark.parametrize(
    "name, strengths",
    [
        ("da-fusion", (0.25, 0.5, 0.75, 1.0)),
        ("diff-mix", (0.5, 0.7, 0.9)),
        ("real-mix", (0.5, 0.7, 0.9)),
        ("real-guidance", (0.1,)),
    ],
)
def test_strengths_are_drawn_evenly_and_cost_their_steps(name, strengths, cub):
    augmenter, rows, count = planned(name, cub)
    drawn = np.array([row.settings["strength"] for row in rows])
    shares = [(drawn == strength).mean() for strength in strengths]
    assert abs(sum(shares) - 1) < 1e-9
    assert max(abs(share - 1 / len(strengths)) for share in shares) < 4 * np.sqrt(0.25 / len(rows))
    assert count == sum(2 * STEPS_OF_25[strength] for strength in drawn)


def test_learning_at_paper_scale_is_what_the_papers_print(cub):
    real, backbone = cub
    effort = {name: make_arm(name, backbone).augmenter.naming.effort(real) for name in AUGMENTERS}
    assert effort["diff-ii"] == effort["diff-mix"] == effort["diff-aug"] == effort["diff-gen"] == (35_000, 2)
    assert effort["da-fusion"] == (200_000, 4)
    assert effort["real-gen"] == effort["real-mix"] == effort["real-guidance"] == (0, 0)
    assert effort["loft"] == (600_000, 1)  # 1,000 adapters of 600 steps (neighbours, section 4)
    assert make_arm("datadream", backbone).augmenter.naming.rank == 16
    assert make_arm("diff-ii", backbone).augmenter.guidance_scale == 7.5


def test_the_embedded_settings_never_reach_another_backbone(cub):
    for name in AUGMENTERS:
        ours, theirs = make_arm(name).augmenter, make_arm(name, cub[1]).augmenter
        assert (
            dataclasses.replace(theirs, backbone=None).settings() == find_method(name).build().settings()
            or name == "round-trip"
        )
        assert all(ours.setting(field) == value for field, value in tiny_settings(name).items())
    assert naming_parts(False)["category"].steps == 35_000 != naming_parts(True)["category"].steps


def test_feature_aligned_at_paper_scale():
    """5,000 tiles of 8 classes, 80 % of them for training: 20 passes in batches of four; 10 images of 7
    classes from 15 seeds."""
    kather = LabeledImages(
        [np.zeros((2, 2, 1), np.uint8)] * 4000,
        np.repeat(np.arange(8), 500),
        [f"class {index}" for index in range(8)],
        [f"{index}.tif" for index in range(4000)],
    )
    for name, weight in (("fine-tuned", 0.0), ("feature-aligned", 1.0)):
        naming = make_arm(
            name, ToyBackbone.from_images(kather[::500].batch(), list(range(8)), kather.class_names)
        ).augmenter.naming
        assert naming.effort(kather) == (20_000, 4)
        assert (
            naming.learning_rate,
            naming.schedule,
            naming.alignment_weight,
            naming.noise_weight,
        ) == (1e-4, "cosine", weight, 1.0)
        assert (
            naming.expert_network,
            naming.expert_size,
            naming.expert_epochs,
            naming.expert_learning_rate,
            naming.expert_input,
            naming.tap,
        ) == ("resnet50", 224, 15, 1e-4, "noisy", None)
    paper = AlignmentStudy(draws=(15, 15), num_inference_steps=999, scale="paper")
    images = [len(paper.seeds(run)) * paper.per_class * (8 - len(paper.left_out)) for run in paper.runs]
    assert images == [1050] * 5
    assert len(paper.arms) * sum(images) * paper.num_inference_steps == 15_734_250


IN_OTHER_TESTS = {"diff-gen", "textual-inversion"}  # below
WITHOUT_BACKBONE = {"original", "genmix", "dcgan", "stylegan", "pixel-diffusion"}
WITH_PAPER = sorted(
    path.stem
    for path in (paper_world.TABLES / "presets").glob("[!_]*.json")
    if '"cells"' in path.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "A folder with the data sets, one with a diffusion model, and presets with small numbers."
    root = tmp_path_factory.mktemp("paper")
    (root / "data").mkdir()
    paper_world.write_presets(root / "presets", WITH_PAPER)
    paper_world.write_presets(root / "few", WITH_PAPER, paper_world.REHEARSED)
    return root, paper_world.build_data(root / "data"), root / "sd"


def quick_evaluators(sets, folder=None, **settings):
    "The usual evaluators with a judge of two updates."
    several = sets.get("train", sets.get("all")).task == "multi"
    return find_evaluators(
        sets,
        folder,
        **{"preset": training_preset("judge_multi" if several else "judge", updates=2), **settings},
    )


def small_expert(preset):
    "Experts with their settings, but two tiles at a step and no moments, which hold the weights twice more."
    return lambda *arguments, **named: dataclasses.replace(
        preset(*arguments, **named), batch_size=2, optimizer="sgd", momentum=0.0
    )


@pytest.fixture
def rehearse(world, monkeypatch):
    "Runs cells of a table as `genaug reproduce --scale paper` would; its rows and names."
    root, data, backbone = world
    paper_world.save_memory(monkeypatch)  # before a first network is made
    monkeypatch.setattr(tables, "find_evaluators", quick_evaluators)
    # the paper's 64 tiles of a step need five gigabytes
    for module in (feature_aligned, alignment, expert_page):
        monkeypatch.setattr(module, "expert_preset", small_expert(module.expert_preset))

    def run(table, cells=None, folder="presets", whole=False, weights="random", **parameters):
        monkeypatch.setattr(presets, "presets_folder", lambda: root / folder)
        chosen = presets.read_cells(table, cells)
        given = presets.Given(
            presets.find_data([str(data)], chosen),
            str(backbone),
            {network.name: weights for cell in chosen for network in cell.networks},
        )
        presets.refuse_missing(chosen, dataclasses.replace(given, metric_weights={})) if not any(
            cell.measures for cell in chosen
        ) else None
        arms = {
            re.split("[@+]", arm)[0] for cell in chosen for arm in parameters.get("methods") or cell.methods
        }
        if not backbone.is_dir() and not arms <= WITHOUT_BACKBONE:  # diffusers takes 120 MB
            paper_world.build_backbone(backbone)
        before, _ = paper_world.used()
        results = root / f"{table}-{len(list(root.iterdir()))}" / "results"
        if "vgg16" in given.classifier_weights:
            monkeypatch.setattr(Normalized, "prepared", paper_world.in_one_order)
        if table in ("genmix_lesions", "genmix_tsne"):
            monkeypatch.setattr(comparison, "training_preset", paper_world.small_views(training_preset))
        with paper_world.quick_kernels(given.classifier_weights):
            space = paper_world.run_page(
                table,
                whole,
                scale="paper",
                run=True,
                cells=cells,
                data=dict(given.data),
                backbone=str(backbone),
                classifier_weights=dict(given.classifier_weights),
                results=str(results),
                **parameters,
            )
        after, peak = paper_world.used()
        print(f"{table}: {after - before:.1f} s of one core, at most {peak:.0f} MB in this process so far")
        rows = read_rows(
            results / f"{'feature_aligned' if table == 'feature_aligned_settings' else table}.csv"
        )
        assert set(rows.scale) == {"paper"}
        assert "failed" not in set(rows.metric)
        return rows, space

    return run


@functools.cache
def random_file(folder):
    "Random weights of a ResNet-50 as a file, as a user has them."
    from safetensors.torch import save_file

    network = make_network("resnet50", 1000, 3, 224, None, seed=3)
    path = folder / "resnet50.safetensors"
    save_file(
        {name.removeprefix("network."): tensor for name, tensor in network.network.state_dict().items()}, path
    )
    return str(path)


@pytest.mark.slow
def test_rehearsal_few_shot_resnet50_from_a_file(rehearse, world):
    few = ";".join(("naming.steps=2", "num_inference_steps=2"))
    arms = ["original", f"diff-gen@{few}", f"textual-inversion@{few}", f"diff-ii@{few};split_ratio=0.3"]
    rows, _ = rehearse(
        "diff_ii_few_shot", ["cars 5-shot resnet50"], methods=arms, weights=random_file(world[0])
    )
    accuracy = rows[(rows.metric == "accuracy") & (rows.part == "")]
    assert sorted(accuracy.method) == ["diff-gen", "diff-ii", "original", "textual-inversion"]
    assert set(accuracy.data) == {"cars 5-shot"}
    assert set(accuracy.classifier.str.partition("@")[0]) == {"resnet50"}
    assert "random" not in accuracy.classifier.iloc[0]
    assert set(rows.backbone.str.partition("@")[0]) == {"sd"}
    assert accuracy[accuracy.method == "diff-ii"].evaluations.iloc[0] > 0


@pytest.mark.slow
def test_rehearsal_long_tail_learns_from_balanced_classes(rehearse):
    arm = "diff-ii@naming.balanced=true;naming.steps=2;num_inference_steps=2;split_ratio=1"
    rows, _ = rehearse("diff_ii_long_tail", ["cub IF=10 lt_diffii"], methods=["original", arm])
    assert set(rows.data) == {"cub IF=10 lt_diffii"}
    assert any("naming.balanced=true" in variant for variant in rows.variant)


@pytest.mark.slow
def test_rehearsal_chest_x_rays_with_densenet121(rehearse):
    arm = f"feature-space@{paper_world.FEW['feature-space']}"
    rows, _ = rehearse("feature_space_ablations", methods=["original", arm])
    assert {"densenet121@random"} < set(rows.classifier)
    assert {
        "mean_average_precision_tail",
        "judge_recall_tail",
    } <= set(rows.metric)


def test_every_method_of_every_table_is_rehearsed_somewhere():
    "Not in its own table perhaps: a table has twenty seconds. The filter turns down all random pictures."
    named = {
        re.split("[@+]", arm)[0]
        for table in WITH_PAPER
        for cell in presets.read_cells(table)
        for arm in cell.methods
    }
    done = {name for cells in paper_world.REHEARSED.values() for names in cells.values() for name in names}
    assert named - done - IN_OTHER_TESTS == {"real-filter"}
    assert set(paper_world.REHEARSED) == set(WITH_PAPER)


ALWAYS = ("diff_ii_few_shot", "genmix_lesions")  # with the two largest networks; the others by `--long` only


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(table, marks=pytest.mark.slow if table in ALWAYS else pytest.mark.long)
        for table in WITH_PAPER
    ],
)
def test_rehearsal_of_every_table_and_its_page(table, rehearse):
    "The cells and methods that `paper_world.REHEARSED` names, and the page, which says they are complete."
    rows, _ = rehearse(table, list(paper_world.REHEARSED[table]), "few", True)
    assert len(rows)


@pytest.mark.long
def test_the_command_runs_a_cell_with_relative_paths(world, tmp_path):
    "The whole way of a user: another working folder, a folder of data sets, a kernel of its own."
    root, package, home = Path(presets.__file__).parent, tmp_path / "package", tmp_path / "home"
    shutil.copytree(root, package / "genaug", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tables", "results"):
        shutil.copytree(root.parent / "nbs" / name, package / "nbs" / name)
    paper_world.build_backbone(world[2])
    shutil.copytree(world[0] / "few", package / "nbs" / "tables" / "presets", dirs_exist_ok=True)
    home.mkdir()
    (home / "data").symlink_to(world[1])
    (home / "sd").symlink_to(world[2])
    words = [
        "reproduce",
        "diff_ii_few_shot",
        "--scale",
        "paper",
        "--cells",
        "pet 5-shot r*",
        "--methods",
        "original,real-gen@num_inference_steps=2",
        "--data",
        "data",
        "--backbone",
        "sd",
        "--classifier-weights",
        "resnet50=random",
        "--out",
        "out",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "from genaug.cli import main; main()", *words],
        cwd=home,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(package)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = read_rows(home / "out" / "diff_ii_few_shot.csv")
    assert set(rows.scale) == {"paper"}
    assert set(rows[rows.metric == "accuracy"].method) == {
        "original",
        "real-gen",
    }
