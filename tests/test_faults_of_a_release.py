"""The fifteen faults found in the release of DiffDA-Eval (UniDiffDA, code of 5 March 2026) as regression
tests of genaug.

Each test is named after its fault and checks that the mechanism, where it exists here, cannot fail in that
way. What does not exist here:
- 1 and 2 concern shell scripts that launch each stage; genaug has one program, so the commands printed in
README are read instead.
- 4 concerns a loader that takes two image sizes only; genaug has no such loader, so the test shows that
any size is fitted and that no arm has a schedule of its own.
- 6 and 7 concern hand-written configuration files for generator and trainer; here one arm is one text, so
the test follows what it writes and reads.
- The best epoch on the test set (15): there is no place to pass a test set; the other half, strengths
tuned on it, is the rule for tuning splits.
"""

import dataclasses
import inspect
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_sets import noise_set
from toy_world import toy_backbone, toy_photographs

from genaug import experiment
from genaug.arms import make_arm, parse_methods
from genaug.choices import ClassName, FromPhotograph, LearnedCategory, learn_or_load
from genaug.classifier import ImageStore, prepare_training, train_classifier
from genaug.comparison import Comparison, classifier_preset, make_split
from genaug.concepts.concept import Concept
from genaug.core import LabeledImages
from genaug.datasets import names
from genaug.diffusion import ToyBackbone
from genaug.experiment import Run, run_experiment
from genaug.inversion import InversionPool, InversionSettings
from genaug.messages import GenaugError
from genaug.methods.diff_ii import circle_frame, circle_interpolate, diff_ii
from genaug.methods.diff_mix import diff_mix
from genaug.plans import Budget
from genaug.prompts import ClassPrompt
from genaug.readers import open_sets
from genaug.recipe import Recipe, _peers
from genaug.registry import find_method, method_names
from genaug.schedule import USES, Showing, SwapClass, SwapPool, TrainingSchedule, training_use
from genaug.synthesis import synthesize
from genaug.synthetic_set import open_synthetic
from genaug.training_presets import PRESETS, training_preset
from genaug.views import View

ROOT = Path(__file__).resolve().parent.parent
PAINTERS = [name for name in method_names() if find_method(name).kind == "augmenter"]
CLASSES = ("woman", "man", "elephant", "ant", "wheelchair", "chair")
QUICK = training_preset("tiny", network="residual", weights=None, updates=2)


def photographs(classes=CLASSES, shots=2, seed=0, prefix=""):
    "Noisy squares, one grey level per class, with file names that mean nothing."
    targets = np.repeat(np.arange(len(classes)), shots)
    tints = 20 + 200 * np.arange(len(classes)) // len(classes)
    return noise_set(targets, classes, seed=seed, high=20, tints=tints, ids=prefix + "{}.png")


def model_of(real):
    return ToyBackbone.from_images(real.batch(), real.targets, real.class_names)


def painted(method, real, folder, copies=2):
    "A finished set of a method that costs nothing."
    method = dataclasses.replace(
        method, backbone=model_of(real), naming=ClassName(), num_inference_steps=10, guidance_scale=1.0
    )
    return method, synthesize(method.fit(real), real, folder, Budget(copies), 0, progress=False)


def commands_of_readme():
    "Every line of README that calls genaug, with its arguments."
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    return [
        shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("    genaug ")
    ]


# Faults 1 and 2: the documented command of the first stage does not parse, and others ask for names that
# the code does not know.


def test_fault_01_a_documented_command_that_does_not_parse():
    import typer

    from genaug.cli import app

    program, actual = typer.main.get_command(app), commands_of_readme()
    assert len(actual) >= 6
    for name, *arguments in actual:
        context = program.commands[name].make_context(
            name, list(arguments)
        )  # raises for an unknown option or a missing argument
        assert context.params
    with pytest.raises(Exception, match="No such option"):
        program.commands["compare"].make_context("compare", ["digit-scenes", "--sample-index", "3"])


def test_fault_02_a_documented_command_with_names_that_do_not_exist():
    options = [dict(zip(arguments, arguments[1:])) for arguments in commands_of_readme()]
    asked = [option[key] for option in options for key in ("--method", "--methods") if key in option]
    assert asked
    assert all(make_arm(arm) for text in asked for arm in parse_methods(text))
    assert all(
        classifier_preset(option["--classifier"]).network for option in options if "--classifier" in option
    )
    built_in = {
        arguments[1]
        for arguments in commands_of_readme()
        if "/" not in arguments[1] and arguments[0] == "compare"
    }
    assert built_in
    assert built_in <= set(names())


# Fault 3: a method draws from a list of strengths, all configuration files give it a single number.


def test_fault_03_a_single_number_as_strengths():
    assert FromPhotograph(0.5).strengths == (0.5,)
    assert FromPhotograph(0.5).plan_start(np.random.default_rng(0), "a", [])[1] == {"strength": 0.5}
    assert diff_mix(strengths=0.7).start.strengths == (0.7,)
    for name in PAINTERS:
        if hasattr(make_arm(name).augmenter, "strengths"):
            arm = make_arm(f"{name}@strengths=0.5", toy_backbone()).augmenter
            arm = dataclasses.replace(arm, naming=ClassName(), num_inference_steps=4).fit(toy_photographs())
            assert {row.settings["strength"] for row in arm.plan(toy_photographs(), Budget(1), 0)} == {0.5}, (
                name
            )


# Fault 4: one method's training asks for 256 pixels where the loader takes 224 or 384, and for weights and
# epochs that the other methods do not get.


@pytest.mark.parametrize("edges", [(256, 256), (20, 31), (7, 7)])
def test_fault_04_an_image_size_that_the_trainer_does_not_take(edges):
    real = noise_set([0, 0, 1, 1], ("square", "bar"), size=edges, ids=list("abcd"))
    assert train_classifier(real, preset=QUICK).predict(real).shape == (4, 2)
    assert all(preset.view.resize >= preset.view.size for preset in PRESETS.values())


def test_fault_04_a_schedule_of_its_own_for_one_arm(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        experiment,
        "prepare_training",
        lambda *given: seen.append((given[2], given[4])) or prepare_training(*given),
    )
    list(
        run_experiment(
            Run(small_question(("original", "mixup", "round-trip")), sets(), toy_backbone(), tmp_path, False)
        )
    )
    # one preset and one seed for all arms
    assert len(seen) == 3
    assert len(set(seen)) == 1
    for setting in ("epochs=300", "weights=random"):
        with pytest.raises(GenaugError, match="has no field"):
            make_arm(f"mixup@{setting}")


# Fault 5: six configuration files name a data set that the code knows under another name.


@pytest.mark.parametrize(
    "call, known",
    [
        (lambda: open_sets("digit-scense"), "digit-scenes"),
        (lambda: make_arm("dif-mix"), "diff-ii"),
        (lambda: make_arm("diff-ii@strenght=1"), "split_ratio"),
        (lambda: training_preset("few_shot_resnet"), "few_shot_resnet50"),
        (lambda: training_use("lrr"), "swap_own"),
        (lambda: Budget(per_class={"Birds": 3}).slots(toy_photographs()), "class names"),
        (lambda: diff_ii(mode="spherical"), "slerp"),
    ],
)
def test_fault_05_an_unknown_name_is_refused_with_the_known_ones(call, known):
    with pytest.raises(GenaugError, match=known) as error:
        call()
    assert "\n" not in str(error.value)


# Faults 6 and 7: the trainer looks into a folder that the generator does not write, folders are shared by
# settings that differ, and the use is missing.


def sets():
    return {
        "train": toy_photographs((5, 5)),
        "test": dataclasses.replace(
            toy_photographs((4, 4), seed=9), ids=[f"exam/{number}" for number in range(8)]
        ),
    }


def small_question(methods, shots=2, **changes):
    return Comparison(
        methods,
        data="toy",
        shots=shots,
        splits=(0,),
        repeats=(0,),
        copies=1,
        updates=1,
        classifier="residual",
        classifier_weights="random",
        **changes,
    )


def test_fault_06_training_looks_into_a_folder_that_painting_does_not_write(tmp_path):
    arms = ("real-guidance@strengths=0.1", "real-guidance@strengths=0.9")
    homes = {}
    # one folder for all shots, as the fault has it
    for shots in (1, 2):
        for unit, _ in run_experiment(
            Run(small_question(arms, shots, replace=1.0), sets(), toy_backbone(), tmp_path, False)
        ):
            assert unit.settings["fed"]["synthetic"] == unit.settings["fed"]["rows"] > 0
        for note in (tmp_path / "synthetic" / "split-0").glob("*.json"):
            record = json.loads(note.read_text())
            made = open_synthetic(note.parent / record["folder"])  # what is noted is what was written
            assert len(made) == 2 * shots
            homes[record["arm"], shots] = record["folder"]
    # no two settings, and no two numbers of shots, share one
    assert len(homes) == 4
    assert len(set(homes.values())) == 4


@pytest.mark.parametrize("name", PAINTERS)
def test_fault_07_an_arm_without_a_use(name):
    assert make_arm(name).use.word in USES
    assert 0 < make_arm(name).use.replace <= 1


# Fault 8: a join by file name keeps none of 500 images, and training goes on without a word.


def test_fault_08_no_synthetic_image_is_used_and_nobody_says_so(tmp_path):
    real = toy_photographs()
    _, made = painted(diff_mix(), real, tmp_path / "mix")
    for use in USES:
        mixer = make_arm("genmix").mixer if use == "partners" else None
        schedule = TrainingSchedule(
            real, made, showing=Showing(training_use(use, replace=1.0), mixer), epochs=4
        )
        shown = {
            key
            for epoch in range(4)
            for row in schedule.plan(epoch).rows
            for key in (row.shown, row.partner or "")
            if key.startswith("synthetic:")
        }
        assert shown, use
        assert shown <= {f"synthetic:{name}" for name in made.ids}, use
    strangers = dataclasses.replace(made, info=[{"sources": [["elsewhere.png", 1.0]]}] * len(made))
    ignored = dataclasses.replace(made, info=[{"weight": 0.0}] * len(made))
    for synthetic, use in (
        (strangers, "swap_own"),
        (ignored, "append"),
        (ignored, "swap_pool"),
        (made[:0], "only"),
        (made[:0], "swap_class"),
    ):
        with pytest.raises(GenaugError, match="No synthetic image was used"):
            train_classifier(real, synthetic, QUICK, Showing(training_use(use)))


# Fault 9: the soft label takes the source class from the photograph that is replaced, not from the one that
# was painted over.


def test_fault_09_the_source_class_of_a_soft_label_is_the_painted_photographs(tmp_path):
    real = photographs()
    method, made = painted(diff_mix(), real, tmp_path / "mix")
    classes = dict(zip(real.ids, real.targets))
    for row in method.plan(real, Budget(2), 0):
        source, label = classes[row.inputs[0][0]], np.array(row.label)
        share = row.settings["strength"] ** 0.5
        assert label[source] == pytest.approx(1 - share, abs=1e-6)
        assert np.count_nonzero(label) == 2
        assert label.sum() == pytest.approx(1, abs=1e-6)
    labels = {f"synthetic:{name}": label for name, label in zip(made.ids, made.labels)}
    store, schedule = (
        ImageStore(real, made, View(8, 8, 0)),
        TrainingSchedule(real, made, showing=Showing(SwapPool(replace=1.0))),
    )
    rows = [row for epoch in range(6) for row in schedule.plan(epoch).rows]
    assert (
        sum(labels[row.shown][classes[row.real_id]] == 0 for row in rows) > len(rows) / 3
    )  # mostly over photographs of third classes
    assert all(np.array_equal(store.labels([row.shown])[0].numpy(), labels[row.shown]) for row in rows)


# Fault 10: where source and target agree, one entry overwrites the other and the label sums to 0.84.


def test_fault_10_source_and_target_of_one_class_lose_no_mass():
    real = toy_photographs()
    method = diff_mix(
        naming=ClassName(), backbone=toy_backbone(), include_own=True, num_inference_steps=4
    ).fit(real)
    rows, classes = method.plan(real, Budget(20), 0), dict(zip(real.ids, real.targets))
    own = [
        row
        for row in rows
        if method.context.text([real.class_names[classes[row.inputs[0][0]]]]) == row.prompts[0][0]
    ]
    assert 0 < len(own) < len(rows)
    assert all(row.label[classes[row.inputs[0][0]]] == 1 for row in own)
    assert all(sum(row.label) == pytest.approx(1, abs=1e-6) for row in rows)


# Fault 11: labels are recovered by searching class names in file names, so a woman becomes a man, an
# elephant an ant.


@pytest.mark.parametrize("start", ["noise", "photograph"])
def test_fault_11_labels_come_from_the_plan_and_never_from_a_name(start, tmp_path):
    real = photographs(prefix="ant man chair ")  # file names that would mislead
    method = Recipe(name="the man") if start == "noise" else Recipe(name="the man", start=FromPhotograph(0.2))
    method, made = painted(method, real, tmp_path / "set")
    rows, classes = (
        {row.id: row for row in method.plan(real, Budget(2), 0)},
        dict(zip(real.ids, real.targets)),
    )
    assert made.counts() == dict.fromkeys(CLASSES, 4.0)
    for name, label, target in zip(made.ids, made.labels, made.targets):
        assert target == classes[rows[name].settings["anchor"]]
        assert label.max() == 1
        assert rows[name].prompts[0][0].split()[-1] == CLASSES[target]
    levels = np.array(
        [
            np.mean([real.image(int(position)).mean() for position in np.flatnonzero(real.targets == index)])
            for index in range(len(CLASSES))
        ]
    )
    nearest = [int(np.abs(made.image(name).mean() - levels).argmin()) for name in made.ids]
    assert nearest == made.targets.tolist()  # the model, too, was asked for the right class
    schedule = TrainingSchedule(real, made, showing=Showing(SwapClass(replace=1.0)))
    assert all(
        made.targets[made.ids.index(row.shown.removeprefix("synthetic:"))] == classes[row.real_id]
        for row in schedule.plan(0).rows
    )


# Fault 12: the partner may be the photograph itself; the cosine of a self-pair then leaves [-1, 1].


@pytest.mark.parametrize("counts", [(5, 2), (1, 1)])
def test_fault_12_a_photograph_is_its_own_partner(counts):
    real = toy_photographs(counts)
    method = diff_ii(
        naming=ClassName(), backbone=toy_backbone(), guidance_scale=1.0, num_inference_steps=4
    ).fit(real)
    rows = method.plan(real, Budget(20), 0)
    assert all(len({name for name, _ in row.inputs}) == (2 if max(counts) > 1 else 0) for row in rows)
    assert all(image.std() > 0 for image in method.paint(rows[:2], real))


def test_fault_12_a_copy_of_a_file_is_no_partner():
    base = toy_photographs((2, 1))
    twins = LabeledImages(
        [base.image(0), base.image(0), base.image(1), base.image(2)],
        [0, 0, 0, 1],
        base.class_names,
        ["a", "copy of a", "b", "c"],
    )
    assert _peers(twins) == {"a": ["b"], "copy of a": ["b"], "b": ["a", "copy of a"], "c": []}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_fault_12_a_cosine_beyond_one_gives_a_finite_point(dtype):
    latents = torch.randn(200, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    left, right = latents.flatten(1), (latents * 1.0003).flatten(1)
    assert (
        (left * right).sum(1) / left.norm(dim=1) / right.norm(dim=1) > 1
    ).any()  # the naive cosine does leave the range
    points = circle_interpolate(
        latents, latents * 1.0003, torch.rand(200, generator=torch.Generator().manual_seed(1))
    )
    ratio = points.flatten(1).norm(dim=1) / latents.float().flatten(1).norm(dim=1)
    # never shrunk or turned round
    assert torch.isfinite(points).all()
    assert ratio.min() > 0.99
    assert ratio.max() < 1.01
    assert torch.isfinite(circle_frame(latents, latents, latents)[2]).all()


# Fault 13: the cache of inversions is keyed by file name; another run's concept is met under it.


def test_fault_13_a_stale_inversion_under_the_same_file_name(tmp_path):
    real, backbone = toy_photographs(), toy_backbone()
    concepts = [Concept({"square": "<c000>"}, {"<c000>": torch.full((1, 4), value)}) for value in (0.0, 1.0)]
    pool = InversionPool(tmp_path)

    def ask(images, concept, **settings):
        return pool.get(
            backbone,
            images,
            images.ids[:2],
            "a photo of a <c000>",
            concept,
            settings=InversionSettings(4, **settings),
        )

    for wanted, images, concept in (
        (2, real, concepts[0]),
        (2, real, concepts[0]),
        (4, real, concepts[1]),
        (6, real, None),
        (8, toy_photographs(seed=5), concepts[0]),
    ):
        ask(images, concept)
        assert pool.computed == wanted  # same names, same file ids: only equal content is reused
    first, again = (
        ask(real, concepts[0]),
        InversionPool(tmp_path).get(
            backbone, real, real.ids[:2], "a photo of a <c000>", concepts[0], settings=InversionSettings(4)
        ),
    )
    assert torch.equal(first, again)
    assert pool.computed == 8


def test_fault_13_a_stale_concept_under_the_same_name(tmp_path):
    backbone, real = toy_backbone(), toy_photographs()
    changed = dataclasses.replace(
        real, pixels=[*real.pixels[1:], real.pixels[0]], digests=None
    )  # the same names, other pixels
    runs = [
        (LearnedCategory(steps=2), real),
        (LearnedCategory(steps=3), real),
        (LearnedCategory(steps=2), changed),
        (LearnedCategory(steps=2, seed=1), real),
    ]
    for count, (naming, images) in enumerate([*runs, *runs], 1):
        learn_or_load(naming, backbone, images, ClassPrompt(), tmp_path)
        assert len(list((tmp_path / "concepts").iterdir())) == min(count, len(runs))


# Fault 14: appending keeps the number of epochs, so an augmented run trains six times as long as its control.


def test_fault_14_append_trains_longer_than_its_control(tmp_path):
    real = toy_photographs()
    _, made = painted(Recipe(name="real-gen"), real, tmp_path / "set", copies=5)
    for preset in (dataclasses.replace(QUICK, updates=7), dataclasses.replace(QUICK, updates=None, epochs=7)):
        fed = {
            use: train_classifier(
                real, made if use else None, preset, Showing(training_use(use or "append"))
            ).shown
            for use in ("", "append", "only", "swap_class")
        }
        assert {value["updates"] for value in fed.values()} == {7}
        assert {value["rows"] for value in fed.values()} == {7 * len(real)}
    assert fed[""]["synthetic"] == 0 < fed["append"]["synthetic"] < fed["only"]["synthetic"]


# Fault 15: the best epoch is chosen on the test set, and strengths are tuned without any validation split.


def test_fault_15_the_epoch_is_chosen_on_the_test_set(tmp_path, monkeypatch):
    for function in (train_classifier, prepare_training):
        assert "test" not in " ".join(inspect.signature(function).parameters)
    given, parts = [], sets()
    monkeypatch.setattr(
        experiment,
        "prepare_training",
        lambda *images: given.append(images) or prepare_training(*images),
    )
    list(
        run_experiment(
            Run(small_question(("original", "round-trip")), parts, toy_backbone(), tmp_path, False)
        )
    )
    for images in given:
        everything = [image for image in images if isinstance(image, LabeledImages)]
        assert everything
        assert not {digest for item in everything for digest in item.sha256} & set(parts["test"].sha256)
        assert images[5] is None  # no validation set: the last update is examined
    assert len(given) == 2


def test_fault_15_settings_are_tuned_on_the_test_set():
    with pytest.raises(GenaugError, match="Tuning uses the splits 100 to 104"):
        Comparison(("original",), condition="validation", splits=(0,))
    with pytest.raises(GenaugError, match="are for tuning"):
        Comparison(("original",), table="few_shot", splits=(100,))
    pool = toy_photographs((6, 6))
    parts = make_split(
        Comparison(("original",), shots=2, condition="validation", splits=(100,)),
        {"train": pool, "test": sets()["test"]},
        100,
    )
    assert set(parts.train.ids) | set(parts.test.ids) <= set(pool.ids)
    assert not set(parts.train.ids) & set(parts.test.ids)
