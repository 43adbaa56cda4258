"""GenMix: the side of the small share, partners, the written-out set, arms, the study of its sets, and what
its tables ask at paper scale."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from table_pages import executed
from toy_sets import noise_set
from toy_world import toy_backbone

from genaug import readings
from genaug.arms import make_arm, parse_methods
from genaug.audit import audit
from genaug.balance.cmo import CMO
from genaug.balance.drw import DRW, Oversampling
from genaug.balance.smote import SmoteMixer
from genaug.classifier import TrainingRun, train_classifier
from genaug.comparison import Comparison, classifier_preset, make_split
from genaug.contracts import Mixer
from genaug.core import LabeledImages
from genaug.experiment import Run
from genaug.genmix_study import (
    accuracy_at,
    answered_shares,
    blend_rows,
    embed_together,
    fill_blends,
    map_points,
    read_points,
    same_class_blends,
    unstudied,
    window_patches,
    write_points,
)
from genaug.identity import content_hash
from genaug.messages import GenaugError
from genaug.methods.genmix import GenMix, ancestors, mixed_set, partner_shares
from genaug.metrics.classification import class_rates, evaluate, share_interval
from genaug.metrics.images import FeatureNetwork, boundary_coverage, manifold_scores
from genaug.mixing.cutmix import CutMix
from genaug.mixing.mixup import MixUp
from genaug.plans import Budget
from genaug.results import put
from genaug.schedule import Append, Partners, Showing, TrainingSchedule, epoch_plan, training_use
from genaug.training_presets import training_preset
from genaug.views import View

ROOT = Path(__file__).resolve().parent.parent
TABLES = ("genmix_lesions", "genmix_tsne", "genmix_alpha_and_ratio")
QUICK = training_preset("tiny", weights=None, updates=4, batch_size=3, view=View(8, 8, 1))


def make(labels, prefix, info=None, seed=0, task="single", channels=3):
    ids = prefix + "{}"
    return noise_set(labels, tuple("abc"), channels=channels, seed=seed, ids=ids, task=task, info=info)


REAL = make([0, 0, 0, 1, 1, 2], "photo")
ANCHORS = [0, 0, 1, 2, 3, 4, 5, 5]
MADE = make(
    [0, 0, 0, 0, 1, 1, 2, 2],
    "row",
    [{"sources": [[f"photo{index}", 1.0]], "source_sha256": [REAL.sha256[index]]} for index in ANCHORS],
    seed=1,
)


def table(epochs=200, real=REAL, synthetic=MADE, seed=3, **mixer):
    schedule = TrainingSchedule(real, synthetic, seed, Showing(Partners(), GenMix(**mixer)), batch_size=2)
    return pd.concat([schedule.plan(epoch).table() for epoch in range(epochs)])


def test_older_plans_have_not_changed_by_a_number():
    "The hash was taken before the pool was added."
    rows = []
    for use in (
        "swap_own",
        "swap_class",
        "swap_pool",
        "swap_tail",
        "append",
        "only",
        "two_loss",
        "two_stage",
    ):
        for mixer in (None, MixUp(), CutMix(), CMO(), SmoteMixer()):
            for weigh in ("loss", "sampling"):
                for balancer in (None, Oversampling()):
                    if balancer is None or use not in ("append", "only"):
                        made = dataclasses.replace(
                            MADE, info=[{"sources": [[f"photo{index}", 1.0]]} for index in ANCHORS]
                        )
                        showing = Showing(training_use(use, weigh=weigh), mixer, balancer)
                        schedule = TrainingSchedule(REAL, made, 3, showing, epochs=4, size=8)
                        rows += [[*map(str, row)] for epoch in range(4) for row in schedule.plan(epoch).rows]
    assert (len(rows), content_hash(rows)[:32]) == (3840, "dbf963af1448a103cfad843d21a5083b")


# ---------------------------------------------------------------- the share and its side


def test_shares_follow_beta_alpha_one():
    from scipy.stats import kstest

    for alpha in (0.3, 1.0, 4.0):
        assert kstest(partner_shares(range(2000), alpha).numpy(), "beta", (alpha, 1)).pvalue > 1e-3
    assert abs(partner_shares(range(4000)).mean() - 0.3 / 1.3) < 0.015


def test_the_share_is_the_partners():
    black, white, labels = torch.zeros(1000, 3, 2, 2), torch.ones(1000, 3, 2, 2), torch.eye(2)[[0] * 1000]
    for mixer in (GenMix(), GenMix(partners="synthetic")):
        mixed, soft = mixer.mix(black, labels, white, labels.flip(1), range(1000))
        assert torch.allclose(mixed[:, 0, 0, 0], partner_shares(range(1000)), atol=1e-6)
        assert torch.allclose(soft[:, 1], mixed[:, 0, 0, 0])
        assert 0.45 < (mixed[:, 0, 0, 0] < 0.1).float().mean() < 0.55


def test_share_zero_is_the_photograph_and_share_one_the_partner():
    first, second = (
        torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)),
        torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)),
    )
    labels = torch.eye(2)
    assert torch.allclose(GenMix(alpha=1e-9).mix(first, labels, second, labels.flip(1), [1, 2])[0], first)
    ends = GenMix(alpha=1e9).mix(first, labels, second, labels.flip(1), [1, 2])
    assert torch.allclose(ends[0], second, atol=1e-6)
    assert torch.allclose(ends[1], labels.flip(1), atol=1e-6)


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"alpha": -1}, {"partners": "slots"}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(GenaugError):
        GenMix(**wrong)


# ---------------------------------------------------------------- the schedule


def test_slots_show_photographs_and_are_those_of_the_baseline():
    for epoch in range(5):
        base, plan = (
            epoch_plan(epoch, REAL, made, 3, showing).rows
            for made, showing in ((None, Showing()), (MADE, Showing(Partners(), GenMix())))
        )
        assert [(row.slot, row.real_id, row.coin, row.view_seed, row.shown) for row in plan] == [
            (row.slot, row.real_id, row.coin, row.view_seed, row.shown) for row in base
        ]
        assert all(row.partner and row.mix == "genmix" for row in plan)


@pytest.mark.parametrize(
    "mixer, share",
    [
        ({}, 8 / 14),
        ({"synthetic_share": 0.2}, 0.2),
        ({"partners": "synthetic"}, 1.0),
        ({"synthetic_share": 1.0}, 1.0),
    ],
)
def test_the_share_of_synthetic_partners(mixer, share):
    plan = table(**mixer)
    assert abs(plan.partner.str.startswith("synthetic:").mean() - share) < 0.05
    assert (plan.partner != plan.shown).all()


def test_partners_of_one_kind_come_alike_unless_they_have_weights():
    plan = table(400, partners="synthetic")
    counts = plan.partner.value_counts()
    assert len(counts) == 8
    assert counts.min() > 0.8 * counts.mean()
    weighted = dataclasses.replace(MADE, info=[{"weight": weight} for weight in (0, 0, 3, 0, 1, 0, 0, 0)])
    shares = table(400, synthetic=weighted, partners="synthetic").partner.value_counts(normalize=True)
    assert set(shares.index) == {"synthetic:row2", "synthetic:row4"}
    assert abs(shares["synthetic:row2"] - 0.75) < 0.04


def test_same_class_pairs():
    of = {f"real:{name}": row for name, row in zip(REAL.ids, REAL.targets)} | {
        f"synthetic:{name}": row for name, row in zip(MADE.ids, MADE.targets)
    }
    plan = table(same_class=True, synthetic_share=0.5)
    there = plan.dropna(subset=["partner"])
    assert (there.shown.map(of) == there.partner.map(of)).all()
    lonely = plan[plan.partner.isna()]
    assert set(lonely.shown) == {
        "real:photo5"
    }  # the only c has no other photograph: half of its slots stay as they are
    assert abs(len(lonely) / (plan.shown == "real:photo5").sum() - 0.5) < 0.1


def test_same_class_with_several_labels():
    scans = make(np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]], np.float32), "scan", task="multi")
    painted = make(np.array([[1, 0, 0], [0, 1, 0], [1, 1, 1]], np.float32), "row", task="multi", seed=1)
    plan = (
        table(real=scans, synthetic=painted, same_class=True, partners="synthetic")
        .groupby("shown")
        .partner.agg(lambda column: set(column.dropna()))
    )
    assert plan["real:scan0"] == {"synthetic:row1", "synthetic:row2"}
    assert plan["real:scan1"] == {"synthetic:row0", "synthetic:row2"}
    assert plan["real:scan3"] == set()


def test_one_share_per_batch():
    plan = (
        TrainingSchedule(REAL, MADE, 0, Showing(Partners(), GenMix(per_batch=True)), batch_size=3)
        .plan(0)
        .rows
    )
    assert [len({row.mix_weight for row in plan[start : start + 3]}) for start in (0, 3)] == [1, 1]
    assert plan[0].mix_weight != plan[3].mix_weight
    trained = train_classifier(REAL, MADE, QUICK, Showing(Partners(), GenMix(per_batch=True)))
    assert trained.shown["mixed"] == 12
    with pytest.raises(GenaugError, match="batch_size"):
        TrainingSchedule(REAL, MADE, 0, Showing(Partners(), GenMix(per_batch=True)))


@pytest.mark.parametrize(
    "synthetic, settings",
    [
        (MADE, {"mixer": MixUp()}),
        (MADE, {}),
        (MADE, {"mixer": GenMix(probability=0.0)}),
        (MADE, {"mixer": GenMix(synthetic_share=0.0)}),
        (None, {"mixer": GenMix(partners="synthetic")}),
        (None, {"mixer": GenMix(synthetic_share=0.5)}),
        (MADE[:0], {"mixer": GenMix()}),
        (dataclasses.replace(MADE, info=[{"weight": 0.0}] * 8), {"mixer": GenMix()}),
    ],
)
def test_no_synthetic_image_was_used(synthetic, settings):
    with pytest.raises(GenaugError, match="No synthetic image was used"):
        TrainingSchedule(REAL, synthetic, showing=Showing(Partners(), **settings))


def test_same_class_without_a_match_is_an_error_too():
    with pytest.raises(GenaugError, match="No synthetic image was used"):
        TrainingSchedule(REAL[:3], MADE[4:6], showing=Showing(Partners(), GenMix(same_class=True)))


def test_the_control_trains_on_photographs_alone_with_equal_updates():
    arms = {
        name: train_classifier(REAL, made, QUICK, showing).shown
        for name, made, showing in (
            ("plain", None, Showing()),
            ("control", None, Showing(Partners(), GenMix())),
            ("genmix", MADE, Showing(Partners(), GenMix())),
        )
    }
    assert {fed["updates"] for fed in arms.values()} == {4}
    assert arms["control"]["synthetic_partners"] == 0 < arms["genmix"]["synthetic_partners"]
    assert arms["genmix"]["synthetic"] == 0
    assert (
        train_classifier(REAL, MADE, QUICK, Showing(Partners(), GenMix(), DRW(start=0.0))).shown["mixed"]
        == 12
    )


def test_other_uses_can_take_partners_from_the_pool():
    plan = epoch_plan(0, REAL, MADE, showing=Showing(Append(), GenMix())).rows
    assert any(row.shown.startswith("synthetic:") for row in plan)
    assert all(row.partner for row in plan)


# ---------------------------------------------------------------- the set written out


def test_a_mixed_set_names_both_parents_and_what_they_were_made_of():
    made = mixed_set(REAL, MADE, GenMix(partners="synthetic"), seed=1)
    again, other = (
        mixed_set(REAL, MADE, GenMix(partners="synthetic"), seed=1),
        mixed_set(REAL, MADE, GenMix(partners="synthetic"), seed=2),
    )
    assert made.sha256 == again.sha256 != other.sha256
    assert made.ids == again.ids
    assert np.allclose(made.labels.sum(1), 1)
    for index in range(len(made)):
        (first, left), (second, right) = made.info[index]["parents"]
        assert abs(left + right - 1) < 1e-6
        assert abs(sum(share for _, share in made.info[index]["sources"]) - 1) < 1e-6
        expected = left * REAL.image(first).astype(float) + right * MADE.image(second)
        assert np.abs(made.image(index) - expected).max() <= 0.51
        assert [name for name, _ in made.info[index]["sources"]] == [
            first,
            f"photo{ANCHORS[int(second[3:])]}",
        ]
    assert all(row.passed is not False for row in audit(made, REAL) if row.check != "no_training_copy")


def test_a_blend_over_a_test_image_is_found():
    leaking = dataclasses.replace(
        MADE, info=[{"sources": [["elsewhere", 1.0]], "source_sha256": [MADE.sha256[0]]}] * 8
    )
    made = mixed_set(REAL, leaking, GenMix(partners="synthetic"))
    broken = {row.check for row in audit(made, REAL, MADE[:1]) if row.passed is False}
    assert {"sources_are_training", "no_test_source"} <= broken


def test_an_image_from_noise_says_what_its_model_saw():
    noise = dataclasses.replace(MADE, info=[{"sources": [], "fitted_on": REAL.fingerprint()}] * 8)
    made = mixed_set(REAL, noise, GenMix(partners="synthetic"))
    assert all(info["fitted_on"] == REAL.fingerprint() and len(info["sources"]) == 1 for info in made.info)
    assert {row.check for row in audit(made, REAL) if row.passed is False} <= {"no_training_copy"}
    assert ancestors(noise, "row0", 0.5)["sources"] == []


def test_grey_photographs_stay_grey_and_several_passes_are_more():
    grey = make([0, 1, 2], "grey", channels=1)
    made = mixed_set(grey, MADE, passes=2)
    assert made.image(0).shape == (8, 8, 1)
    assert len(made) == 6


# ---------------------------------------------------------------- arms


def test_arms_with_genmix():
    arm = make_arm("textual-inversion@copies=1+genmix@alpha=1;partners=synthetic", toy_backbone())
    assert (arm.use.word, arm.mixer.alpha, arm.mixer.partners, arm.budget["copies"]) == (
        "partners",
        1,
        "synthetic",
        1,
    )
    assert arm.augmenter.name == "textual-inversion"
    assert arm.text == parse_methods(arm.text)[0]
    assert make_arm("genmix@same_class=true").mixer.same_class
    assert isinstance(make_arm("genmix").mixer, Mixer)
    assert (
        arm.augmenter.num_inference_steps,
        arm.augmenter.guidance_scale,
        arm.augmenter.naming.tokens_per_class,
    ) == (50, 10.0, 1)
    with pytest.raises(GenaugError, match="no value"):
        parse_methods("diff-ii+genmix@alpha")
    with pytest.raises(GenaugError, match="no field"):
        make_arm("diff-ii+genmix@beta=1")
    with pytest.raises(GenaugError, match="two mixers"):
        parse_methods("diff-ii+genmix+mixup")


def test_a_multi_label_comparison_reaches_the_set_through_the_mixer():
    scans = make(np.array([[1, 1, 0], [0, 0, 1]], np.float32), "scan", task="multi")
    bench = Run(Comparison(("smote",), "x", shots=None), {"train": scans}, toy_backbone(), Path("nowhere"))
    assert (bench.arm("diff-ii").use.word, bench.arm("diff-ii+genmix").use.word) == ("append", "partners")


# ---------------------------------------------------------------- judging


def test_the_two_specificities_differ_where_other_classes_are_mixed_up():
    rates = class_rates(np.array([[3, 1, 0], [1, 2, 0], [1, 0, 3]]))
    assert rates["specificity"].tolist() == [5 / 7, 7 / 8, 1.0]
    assert rates["specificity_alt"].tolist() == [
        5 / 7,
        6 / 8,
        5 / 7,
    ]
    draw = np.random.default_rng(0)
    for _ in range(20):
        table = draw.integers(0, 9, (4, 4)) + np.eye(4, dtype=int)
        rates, others = class_rates(table), table.sum() - table.sum(1)
        errors = table.sum() - np.trace(table)
        assert np.isclose(((1 - rates["specificity"]) * others).sum(), errors)
        assert np.isclose(((1 - rates["specificity_alt"]) * others).sum(), 3 * errors)
    rows = {
        (row.metric, row.part): row
        for row in evaluate(np.eye(3)[[0, 1, 1]], np.eye(3)[[0, 1, 2]], "single", "abc")
    }
    assert rows["specificity_alt", "class=a"].value == 0.5
    assert rows["specificity", "class=a"].value == 1.0
    assert rows["specificity_alt", "class=a"].n == 2


@pytest.mark.parametrize("hits, count", [(0, 30), (10, 30), (30, 30), (149, 307)])
def test_wilsons_interval_is_scipys(hits, count):
    from scipy.stats import binomtest

    reference = binomtest(hits, count).proportion_ci(method="wilson")
    assert np.allclose(share_interval(hits, count)[1:3], reference, atol=1e-12)


def test_a_share_must_be_one():
    for hits, count in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(GenaugError):
            share_interval(hits, count)


def test_manifold_scores_and_borders():
    draw = np.random.default_rng(0)
    real, made = draw.normal(size=(80, 2)), draw.normal(size=(60, 2)) * 0.05
    precision, recall = manifold_scores(real, made)
    assert precision == 1.0
    assert recall < 0.2
    assert manifold_scores(made, real) == (recall, precision)
    classes = (real[:, 0] > 0).astype(int)
    assert boundary_coverage(np.array([[0.0, 0.0]]), real, classes, 10) == 1
    assert boundary_coverage(np.array([[9.0, 0.0]]), real, classes, 5) == 0
    for call in (
        lambda: manifold_scores(real[:3], made),
        lambda: boundary_coverage(real, real[:3], classes[:3], 5),
    ):
        with pytest.raises(GenaugError):
            call()


# ---------------------------------------------------------------- early stopping


def test_early_stopping_keeps_the_best_epoch_and_the_account():
    preset = dataclasses.replace(QUICK, updates=40, patience=2)
    trained = train_classifier(REAL, None, preset, validation=MADE)
    assert trained.shown["updates"] == len(trained.losses) <= 40
    assert trained.shown["updates"] % 2 == 0
    whole = train_classifier(REAL, None, dataclasses.replace(preset, patience=None), validation=MADE)
    assert whole.shown["updates"] == 40
    assert trained.losses == whole.losses[: len(trained.losses)]
    with pytest.raises(GenaugError, match="validation"):
        train_classifier(REAL, None, preset)


def test_the_validation_part_is_real_and_apart():
    question = Comparison(("original",), "lesions", shots=None, splits=(0,), draws=True)
    split = make_split(question, {}, 0)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [681, 302, 307]
    assert not {*split.train.ids} & {*split.validation.ids}
    assert not {*split.validation.ids} & {*split.test.ids}
    assert set(split.validation.origins) == {"real"}


# ---------------------------------------------------------------- maps and patches


def test_maps_are_seeded_and_leave_random_state_alone():
    state = np.random.get_state()[1].copy()
    parts = [np.random.default_rng(index).normal(size=(20, 5)) for index in range(2)]
    left, right = embed_together(parts, 0), embed_together(parts, 0)
    assert [part.shape for part in left] == [(20, 2)] * 2
    assert all(np.array_equal(*pair) for pair in zip(left, right))
    assert (np.random.get_state()[1] == state).all()
    with pytest.raises(GenaugError):
        embed_together([np.zeros((3, 2))])


def test_points_survive_their_file_and_mixed_images_have_their_largest_label(tmp_path):
    network = FeatureNetwork(
        "pixels",
        lambda images: np.stack([images.image(index).ravel()[:6] for index in range(len(images))]).astype(
            float
        ),
    )
    mixed = mixed_set(REAL, MADE)
    write_points(map_points("a", {"real": REAL, "genmix": mixed}, network), tmp_path / "deep" / "points.csv")
    points = read_points(tmp_path / "deep" / "points.csv")
    assert list(points[points.set == "genmix"]["class"]) == [
        mixed.class_names[index] for index in mixed.labels.argmax(1)
    ]
    assert len(read_points(tmp_path / "none.csv")) == 0


@pytest.mark.parametrize("broken", [np.zeros((4, 4, 3)), np.full((4, 4), np.nan)])
def test_broken_patches_are_refused(broken, tmp_path):
    (tmp_path / "in" / "train" / "cyst").mkdir(parents=True)
    np.save(tmp_path / "in" / "train" / "cyst" / "p_1.npy", broken)
    with pytest.raises(GenaugError):
        window_patches(tmp_path / "in", tmp_path / "out")
    with pytest.raises(GenaugError):
        window_patches(tmp_path / "nothing", tmp_path / "out")


# ---------------------------------------------------------------- class shares, blends of one class


def by_class(answers, truth, arm, split=0):
    "The rows by class that a run would have."
    rows = evaluate(np.eye(3)[answers], np.eye(3)[truth], "single", "abc")
    return pd.DataFrame(
        [
            {
                "method": arm,
                "variant": "",
                "split": str(split),
                "seed": "0",
                "metric": row.metric,
                "part": row.part,
                "value": row.value,
                "n": row.n,
            }
            for row in rows
            if row.part.startswith("class=")
        ]
    )


def test_an_accuracy_at_other_shares_is_that_of_a_resampled_test():
    draw = np.random.default_rng(0)
    truth, answers = np.repeat([0, 1, 2], (30, 8, 22)), None
    answers = np.where(draw.random(60) < 0.6, truth, draw.integers(0, 3, 60))
    points = by_class(answers, truth, "genmix")
    for times in ((1, 1, 1), (5, 1, 2), (1, 9, 3)):
        again = np.repeat(np.arange(60), np.array(times)[truth])
        shares = dict(zip("abc", np.bincount(truth[again])))
        assert np.isclose(
            accuracy_at(points, shares).loc[(0, 0), "genmix"], (answers[again] == truth[again]).mean()
        )
        assert np.isclose(
            accuracy_at(points, {name: count / 7 for name, count in shares.items()}).iloc[0, 0],
            (answers[again] == truth[again]).mean(),
        )
    said = answered_shares(points, dict(zip("abc", (30, 8, 22)))).iloc[0]
    assert np.allclose(said, np.bincount(answers, minlength=3) / 60)


def test_leaning_is_told_from_seeing_less():
    truth = np.repeat([0, 1, 2], (30, 8, 22))
    lean = np.where(np.arange(60) % 4 == 0, 0, truth)  # a quarter of all answers turned to the first class
    points = pd.concat(
        [
            by_class(item, truth, arm, split)
            for split in range(3)
            for item, arm in ((truth, "original"), (lean, "genmix"))
        ]
    )
    tested, trained = dict(zip("abc", (30, 8, 22))), {"a": 80, "b": 10, "c": 10}
    lost = [(lean[truth == index] != index).mean() for index in range(3)]
    at_test, at_training = (readings.View(accuracy_at(points, shares)) for shares in (tested, trained))
    assert np.isclose(at_test.level("original").mean, 1)
    assert np.isclose(at_test.gain("genmix").mean, -(lean != truth).mean())
    assert np.isclose(at_training.gain("genmix").mean, -0.1 * (lost[1] + lost[2]))
    assert np.isclose(
        readings.View(answered_shares(points, tested)["a"]).level("genmix").mean, (lean == 0).mean()
    )
    assert str(at_test.gain("cutmix")) == "–"


def test_blends_of_one_class():
    blends = {share: same_class_blends(REAL, share, 2) for share in (0.0, 0.5, 1.0)}
    assert blends[0.0].sha256 == REAL.sha256
    assert all(
        images.ids == REAL.ids and np.array_equal(images.labels, REAL.labels) for images in blends.values()
    )
    for index in range(len(REAL)):
        partner = REAL.sha256.index(blends[1.0].sha256[index])
        # the only one of its class stays
        assert REAL.targets[partner] == REAL.targets[index]
        assert partner != index or index == 5
        mean = (REAL.image(index).astype(float) + REAL.image(partner)) / 2
        assert np.abs(blends[0.5].image(index) - mean).max() <= 0.51


def test_a_judges_answers_add_up_and_are_asked_once(tmp_path):
    blind = type("Blind", (), {"predict": lambda self, images: np.eye(3)[np.zeros(len(images), int)]})()
    rows = blend_rows(REAL, blind, (0.0, 0.5))
    assert len(rows) == 18
    assert {value for _, part, value, _ in rows if part.endswith("pred=a")} == {1.0}
    assert {n for _, part, _, n in rows if "true=b" in part} == {2}
    question = dataclasses.replace(
        asked("genmix_alpha_and_ratio", "hour")[0], table="genmix_blends", splits=(100,)
    )

    def ask():
        return fill_blends(
            question,
            "lesions",
            tmp_path / "rows.csv",
            tmp_path / "judges",
            (0.5,),
            {"preset": training_preset("judge", updates=1)},
        )

    ask()
    written = (tmp_path / "rows.csv").read_text()
    ask()
    assert (tmp_path / "rows.csv").read_text() == written
    assert written.count("judge_answers") == 9
    assert ",100,validation," in written


@pytest.mark.parametrize("draws", [True, False])
def test_the_judge_is_asked_about_photographs_it_has_not_seen(draws, tmp_path, monkeypatch):
    import genaug.genmix_study as study

    asked, taught = [], []
    sets = {"train": make([0, 0, 1, 1, 2, 2], "train"), "val": make([0, 0, 1, 1, 2, 2], "val", seed=7)}
    question = Comparison(
        ("original",),
        "lesions" if draws else "folder",
        shots=None,
        splits=(100,) if draws else (0,),
        condition="validation" if draws else "natural",
        test_part="test" if draws else "val",
        draws=draws,
        table="genmix_blends",
    )
    pool = make([0, 1, 2], "pool", seed=9)
    monkeypatch.setattr(study, "judging_pool", lambda name: pool)
    split = type("Split", (), {"train": sets["train"], "test": sets["val"]})
    monkeypatch.setattr(
        study, "open_run", lambda asked, source, folder, progress: Run(asked, sets, None, folder, progress)
    )
    monkeypatch.setattr(Run, "splits", {100: split, 0: split})
    evaluators = type(
        "Evaluators",
        (),
        {
            "judge": type(
                "Judge",
                (),
                {"name": "judge", "predict": lambda self, images: asked.append(images.ids) or images.labels},
            )()
        },
    )
    monkeypatch.setattr(
        study,
        "find_evaluators",
        lambda sets, folder, pool=None: taught.append((pool or sets["train"]).ids) or evaluators,
    )
    fill_blends(question, "anything", tmp_path / "rows.csv", tmp_path, (0.0,))
    assert len(asked) == 1
    assert not set(asked[0]) & set(taught[0])
    assert asked[0] == sets["train" if draws else "val"].ids


def test_the_comparisons_device_reaches_the_generators(tmp_path):
    question = Comparison(("dcgan",), "lesions", shots=None, draws=True, device="cuda")
    here, there = (
        Run(dataclasses.replace(question, device=device), {"train": REAL}, None, tmp_path, False)
        for device in ("cpu", "cuda")
    )
    made = [bench.arm("dcgan").augmenter for bench in (here, there)]
    assert [augmenter.device for augmenter in made] == ["cpu", "cuda"]
    assert made[0].fingerprint() == made[1].fingerprint()
    assert there.arm("dcgan@device=cpu").augmenter.device == "cpu"
    assert there.arm("smote").augmenter.name == "smote"


# ---------------------------------------------------------------- the tables at paper scale


@pytest.fixture(scope="module")
def liver():
    "The paper's class sizes, one pixel each."
    targets = np.repeat([0, 1, 2], (433, 70, 178))
    return LabeledImages(
        [np.zeros((1, 1, 1), np.uint8)] * 681,
        targets,
        ("cyst", "hemangioma", "metastasis"),
        [f"{index}.png" for index in range(681)],
    )


def asked(name, scale, **parameters):
    "What a table page asks."
    return executed(name, scale=scale, **parameters)["table"].questions


def test_the_papers_rows_ratios_and_updates(liver):
    table = executed("genmix_lesions", scale="paper", data={"lesions": "/data/lesions"})["table"]
    (question,) = table.questions
    assert not question.draws
    assert question.classifier.partition("@")[0] == "genmix_vgg16"
    assert classifier_preset(question.classifier) == training_preset("genmix_vgg16")
    assert len(question.methods) == 23
    assert question.repeats == (0, 1)
    assert len(question.splits) == 3
    preset = classifier_preset(question.classifier, question.classifier_weights, question.updates)
    assert (preset.network, preset.epochs, preset.batch_size, preset.learning_rate, preset.patience) == (
        "vgg16",
        100,
        8,
        2e-4,
        20,
    )
    assert preset.epochs * (len(liver) // preset.batch_size) == 8500
    counts = {}
    for arm in question.methods[3:7]:
        copies = float(arm.partition("@copies=")[2] or 1)
        counts[table.page["titles"][arm]] = [Budget(copies=copies).wanted(liver)[index] for index in range(3)]
    assert counts["StyleGAN"] == [288, 46, 118]
    assert all(counts[title] == [433, 70, 178] for title in ("DCGAN", "Textual inversion", "Diffusion model"))
    assert abs(sum(counts["StyleGAN"]) / (681 + sum(counts["StyleGAN"])) - 0.4) < 0.002
    assert Budget(fill=True).wanted(liver) == {0: 0, 1: 363, 2: 255}
    printed = pd.read_csv(ROOT / "nbs" / "results" / "paper" / "genmix_lesions.csv")
    assert list(dict.fromkeys(printed.method)) == list(question.methods[:11])
    assert len(printed) == 88


def test_updates_do_not_depend_on_the_generator(liver):
    made = LabeledImages(liver.pixels, liver.labels, liver.class_names, [f"row {name}" for name in liver.ids])
    for synthetic, use, mixer in (
        (None, "swap_class", None),
        (made, "append", None),
        (made, "partners", GenMix()),
        (made, "only", None),
    ):
        schedule = TrainingSchedule(liver, synthetic, 0, Showing(training_use(use), mixer), batch_size=8)
        run = TrainingRun(type("Trained", (), {"preset": QUICK})(), schedule, None, 8, 170)
        assert [len(run.rows(update)) for update in (0, 84, 85, 169)] == [8] * 4
        assert run.account()["rows"] == 1360


def test_tables_ask_for_what_they_say():
    for name in TABLES:
        smoke, hour = (asked(name, scale)[0] for scale in ("seconds", "hour"))
        assert hour.draws
        assert hour.shots is None
        assert hour.updates == 600
        assert len(hour.splits) == 3
        assert hour.table == name
        assert (hour.condition, hour.splits) == (
            ("validation", (100, 101, 102)) if name == "genmix_alpha_and_ratio" else ("natural", (0, 1, 2))
        )
        assert len(set(hour.methods)) == len(hour.methods) == len(smoke.methods)
    (tuned,) = asked("genmix_alpha_and_ratio", "paper", data={"fll": "/data/lesions"})
    assert (tuned.condition, tuned.test_part, tuned.draws) == ("natural", "val", False)


def test_another_generator_takes_the_place_of_the_presets():
    smoke, longer = asked("genmix_alpha_and_ratio", "seconds", generator="stylegan")
    assert "stylegan@copies=0.03;steps=2+genmix@alpha=0.1" in smoke.methods
    assert set(longer.methods) < set(smoke.methods)
    assert not any("pixel-diffusion" in arm for arm in smoke.methods)
    (paper,) = asked("genmix_alpha_and_ratio", "paper", generator="dcgan")
    written = next(arm for arm in paper.methods if arm.startswith("dcgan@") and "+" not in arm)
    assert "steps=70000" in written
    assert f"{written}+genmix" in paper.methods


def toy_table(question, longer, folder):
    "Rows in which every mixed arm gains a tenth, and GenMix with photographs alone half as much again."
    from genaug.comparison import condition_name
    from genaug.results import arm_fields

    rows, points = [], []
    for entry, arm in [(item, arm) for item in (question, longer) for arm in item.methods]:
        for split in question.splits:
            for seed in question.repeats:
                shared = dict(
                    table=entry.table,
                    scale="hour",
                    data=question.data,
                    split=split,
                    seed=seed,
                    condition=condition_name(question),
                    backbone="tiny@0",
                    classifier="letters@0",
                    n=30,
                    **arm_fields(arm),
                )
                gain = 0.1 * ("genmix" in arm) + 0.05 * (arm == "genmix")
                rows += [
                    shared | {"metric": metric, "part": "", "value": 0.6 + 0.02 * split + gain}
                    for metric in ("accuracy", "macro_f1", "balanced_accuracy")
                ]
                points += [
                    shared | {"metric": metric, "part": f"class={name}", "value": 0.5}
                    for metric in ("sensitivity", "specificity", "specificity_alt")
                    for name in ("cyst", "hemangioma", "metastasis")
                ]
    for entry in (question, longer):
        put([row for row in rows if row["table"] == entry.table], folder / f"{entry.table}.csv")
        put([row for row in points if row["table"] == entry.table], folder / "points" / f"{entry.table}.csv")


def test_the_table_shows_gains_and_says_when_it_is_complete(tmp_path, capsys):
    question, longer = asked("genmix_lesions", "hour")
    assert longer.updates == 2400
    assert len(longer.methods) == 13
    assert set(longer.methods) < set(question.methods)
    assert longer.splits == question.splits
    toy_table(question, longer, tmp_path / "results")
    space = executed("genmix_lesions", until_run=False, scale="hour", results=str(tmp_path / "results"))
    shown, mix = space["shown"], space["mix"]
    assert shown.missing() == []
    for part in shown.parts():
        gains = mix.gain_parts(shown, part, "macro_f1").columns
        assert gains["generator"][0] == "DCGAN"
        assert str(gains["appended minus photographs"][0]) == "+0.0 [+0.0, +0.0]"
        assert str(gains["GenMix minus appended"][0]) == "+10.0 [+10.0, +10.0]"
        assert str(gains["GenMix minus GenMix of photographs alone"][0]) == "-5.0 [-5.0, -5.0]"
        view = shown.view(part)
        assert str(view.gain("genmix")) == "+15.0 [+15.0, +15.0]"
    classes = mix.class_table_beside(shown, shown.part()).columns
    assert classes["cyst, paper, %"][0] == "85.6"
    assert str(classes["cyst, ours, %"][0]) == "50.0 [50.0, 50.0]"
    assert [cells[0] for name, cells in classes.items() if "one test set" in name] == ["33 to 67"]


def test_the_study_knows_what_it_lacks(tmp_path):
    (question,) = asked("genmix_tsne", "hour")
    assert unstudied(question, tmp_path / "none.csv") == [
        (split, arm) for split in (0, 1, 2) for arm in question.methods
    ]
    assert len(question.methods) == 4
