"The interval over splits, seeds and test images, and the verdict: references, limits, invariants, coverage."

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from genaug.compare import decision_of
from genaug.decision import (
    at_level,
    corrected_levels,
    decide,
    p_value,
    shown_arms,
    splits_needed,
    standard_error,
    visible_effect,
)
from genaug.messages import GenaugError
from genaug.metrics.crossed import CrossedInterval, crossed_interval
from genaug.summary import answer_table, crossed_summary

RANDOM = np.random.default_rng(7)


def gain(points, error=2.0, freedom=6.0, splits=5, images=500):
    "A made-up gain with a standard error in points, all of it between splits."
    reach = error * stats.t.ppf(0.975, freedom)
    return CrossedInterval(
        points / 100,
        (points - reach) / 100,
        (points + reach) / 100,
        splits,
        images,
        splits * (error / 100) ** 2,
        0.0,
        freedom,
    )


# ---------------------------------------------------------------------------------------------- the interval


@pytest.mark.parametrize("shape", [(2, 5), (3, 40), (10, 7)])
def test_complete_answers_give_the_variance_of_dorfman_berbaum_and_metz(shape):
    table = RANDOM.choice([-1.0, 0, 1], shape)
    splits, images = shape
    frame = pd.DataFrame(table).stack().rename("answer").reset_index()
    total = frame.answer.mean()
    rows, columns = (frame.groupby(level).answer.mean() - total for level in ("level_0", "level_1"))
    rest = table - total - rows.to_numpy()[:, None] - columns.to_numpy()
    square_rows = images * (rows**2).sum() / (splits - 1)
    square_columns = splits * (columns**2).sum() / (images - 1)
    square_rest = (rest**2).sum() / ((splits - 1) * (images - 1))
    expected = (square_rows + max(square_columns - square_rest, 0)) / (splits * images)
    ours = crossed_interval(table)
    assert ours.between_splits / splits + ours.between_images / images == pytest.approx(expected)
    assert standard_error(ours) == pytest.approx(math.sqrt(expected))


def test_disjoint_test_images_give_the_t_interval_over_splits():
    table = np.full((4, 40), np.nan)
    for split in range(4):
        table[split, 10 * split : 10 * split + 10] = RANDOM.normal(size=10)
    means = np.nanmean(table, 1)
    low, high = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
    assert crossed_interval(table)[:3] == pytest.approx((means.mean(), low, high))


def test_one_number_per_split_gives_the_t_interval():
    means = RANDOM.normal(size=6)
    low, high = stats.t.interval(0.95, 5, means.mean(), stats.sem(means))
    assert crossed_interval(means[:, None])[:3] == pytest.approx((means.mean(), low, high))


def test_splits_that_agree_leave_the_interval_over_test_images():
    answers = RANDOM.choice([-1.0, 0, 1], 400)
    ours = crossed_interval(np.repeat(answers[None], 6, 0))
    low, high = stats.t.interval(0.95, 399, answers.mean(), stats.sem(answers))
    assert ours[:3] == pytest.approx((answers.mean(), low, high))


def test_the_order_of_splits_and_images_is_of_no_account():
    table = RANDOM.choice([-1.0, 0, 1, np.nan], (5, 30), p=(0.2, 0.4, 0.2, 0.2))
    shuffled = table[RANDOM.permutation(5)][:, RANDOM.permutation(30)]
    assert crossed_interval(shuffled) == pytest.approx(crossed_interval(table))


def test_the_sign_turns_the_interval():
    table = RANDOM.choice([-1.0, 0, 1], (3, 30))
    ours, turned = crossed_interval(table), crossed_interval(-table)
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-ours.mean, -ours.high, -ours.low))


@pytest.mark.parametrize("table", [np.zeros((0, 3)), np.zeros(4), [[0.0, 1], [np.nan, np.nan]]])
def test_tables_that_cannot_be_are_refused(table):
    with pytest.raises(GenaugError):
        crossed_interval(table)


def simulated(generator, splits, seeds, images, spread):
    "Differences of two arms, and the truth; arms share images, splits have a part of their own."
    normal, levels = generator.normal, []
    shared = 0.93 * normal(size=images)
    for shift in (0.2, 0.45):
        own, split = 0.76 * normal(size=images), spread * normal(size=(splits, 1, 1))
        seed = 0.15 * normal(size=(splits, seeds, 1))
        noise = normal(size=(splits, seeds, images))
        levels.append(shift + shared + own + split + seed + noise > 0)
    scale = math.sqrt(1 + 0.93**2 + 0.76**2 + spread**2 + 0.15**2)
    truth = stats.norm.cdf(0.45 / scale) - stats.norm.cdf(0.2 / scale)
    return levels[1].mean(1) - levels[0].mean(1), truth


def covered(splits, seeds, images, spread, runs):
    "Share of intervals that hold the truth."
    generator = np.random.default_rng([9, splits, seeds, images, int(100 * spread)])
    made = (simulated(generator, splits, seeds, images, spread) for _ in range(runs))
    return np.mean(
        [ours.low <= truth <= ours.high for table, truth in made for ours in [crossed_interval(table)]]
    )


@pytest.mark.parametrize("splits, images", [(3, 40), (5, 900), (10, 40)])
def test_the_interval_holds_the_truth(splits, images):
    assert 0.92 < covered(splits, 1, images, 0.1, 800) < 0.985


@pytest.mark.long
@pytest.mark.parametrize(
    "splits, seeds, images, spread", list(itertools.product((3, 5, 10), (1, 2), (40, 900), (0.0, 0.1, 0.3)))
)
def test_coverage_is_93_to_97_percent(splits, seeds, images, spread):
    share = covered(splits, seeds, images, spread, 4000)
    error = math.sqrt(0.95 * 0.05 / 4000)
    assert 0.93 - error < share < (0.98 if splits == 3 else 0.97) + error


# --------------------------------------------------------------------------------------- answers to a table


def test_answers_become_a_table_of_the_runs_that_both_arms_have():
    first = {(0, 0): {"a": 1, "b": 0}, (0, 1): {"a": 1, "b": 1}, (2, 0): {"b": 1, "c": 1}}
    second = {(0, 0): {"a": 0, "b": 0}, (2, 0): {"b": 0, "c": 1}}
    table = answer_table(first, second)
    assert np.array_equal(table, [[1, 0, np.nan], [np.nan, 1, 0]], equal_nan=True)
    assert np.array_equal(answer_table(first)[0, :2], [1, 0.5])


def test_a_summary_keeps_its_intervals_where_answers_are_missing():
    summary = pd.DataFrame(
        {"arm": ["original"], "splits": [2], "runs": [2], "mean": [0.5], "low": [0.1], "high": [0.9]}
    )
    single = {"original": {(0, 0): {"a": 1}}}
    assert crossed_summary(summary, single).equals(summary)
    assert crossed_summary(summary, {}).equals(summary)


# ------------------------------------------------------------------------------------------------ the verdict


def holm(values):
    "Adjusted p-values of Holm (1979), step by step."
    order, adjusted, reached = np.argsort(values), np.empty(len(values)), 0.0
    for before, index in enumerate(order):
        reached = max(reached, min(1.0, (len(values) - before) * values[index]))
        adjusted[index] = reached
    return adjusted


@pytest.mark.parametrize("seed", range(30))
def test_arms_are_shown_by_holms_rule(seed):
    generator = np.random.default_rng(seed)
    gains = {f"arm {number}": gain(generator.normal(3, 4)) for number in range(int(generator.integers(1, 9)))}
    adjusted = holm([p_value(each) for each in gains.values()])
    expected = {arm for (arm, each), value in zip(gains.items(), adjusted) if value < 0.05 and each.mean > 0}
    assert set(shown_arms(gains)) == expected


@pytest.mark.parametrize("seed", range(10))
def test_the_interval_at_holms_level_excludes_zero_where_the_arm_is_shown(seed):
    generator = np.random.default_rng(100 + seed)
    gains = {f"arm {number}": gain(generator.normal(4, 4)) for number in range(5)}
    levels = corrected_levels(gains)
    for arm in shown_arms(gains):
        assert at_level(gains[arm], levels[arm]).low > 0
        assert levels[arm] >= 0.95


def test_the_p_value_is_that_of_the_t_test():
    means = RANDOM.normal(0.02, 0.03, size=7)
    ours = crossed_interval(means[:, None])
    assert p_value(ours) == pytest.approx(stats.ttest_1samp(means, 0).pvalue)


def test_the_smallest_visible_gain_is_found_in_four_of_five_comparisons():
    error, splits = 0.02, 8
    generator = np.random.default_rng(3)
    example = gain(0, error=100 * error, freedom=splits - 1, splits=splits)
    true = visible_effect(example)
    draws = generator.normal(true, error * math.sqrt(splits), size=(4000, splits))
    low, _ = stats.t.interval(0.95, splits - 1, draws.mean(1), stats.sem(draws, axis=1))
    assert np.mean(low > 0) == pytest.approx(0.8, abs=0.03)


def test_more_wanted_needs_fewer_splits_and_few_images_cannot_see_it():
    example = gain(1)
    counts = [splits_needed(example, wanted) for wanted in (0.02, 0.04, 0.08)]
    assert counts == sorted(counts, reverse=True)
    assert splits_needed(example._replace(between_splits=0.0)) is None


NEVER = {"paints": {"diff-ii", "diff-aug"}}


@pytest.mark.parametrize(
    "gains, between, kind, arm",
    [
        ({"mixup": 1, "diff-ii": 2}, 0, "cannot be told", ""),
        ({"mixup": -9, "diff-ii": -8}, 0, "nothing helps", ""),
        ({"mixup": 9, "diff-ii": 1}, 0, "arm", "mixup"),
        ({"mixup": 1, "diff-ii": 12}, 0, "arm", "diff-ii"),
        ({"mixup": 10, "diff-ii": 12}, 2, "paint nothing", "mixup"),
        ({"mixup": 10, "diff-ii": 20}, 10, "arm", "diff-ii"),
        ({"mixup": 10, "cutmix": 13, "diff-ii": 11, "diff-aug": 14}, 1, "paint nothing", "cutmix"),
        ({"round-trip": 20, "mixup": 0}, 0, "cannot be told", ""),
    ],
)
def test_verdicts(gains, between, kind, arm):
    made = {name: gain(points) for name, points in {"original": 0, **gains}.items()}
    decision = decide(made, NEVER["paints"], lambda first, second: gain(between))
    assert (decision.kind, decision.arm) == (kind, arm)
    words = " ".join(decision.sentences())
    assert (arm in words) if arm else ("use the photographs alone" in words or "cannot be told" in words)
    assert "smallest gain" in words


def test_controls_alone_are_no_decision():
    assert decide({"original": gain(0), "round-trip": gain(3)}, set(), None) is None


def test_the_cost_stands_in_the_verdict():
    decision = decide({"mixup": gain(9)}, set(), None, {"mixup": "9 seconds of training per split"})
    assert "It took 9 seconds of training per split." in decision.sentences()[0]


def test_splits_that_agree_by_chance_are_not_certain():
    table = np.zeros((2, 40))
    table[0, 3] = table[1, 7] = 1  # each gains one image, and both the same mean
    ours = crossed_interval(table)
    assert ours.low < 0 < ours.high
    assert shown_arms({"mixup": ours}) == []


def decided(values, paints=()):
    "The verdict over a table of runs (rows: splits, NaN: the run failed) without answers to images."
    index = pd.MultiIndex.from_product(
        [range(len(next(iter(values.values())))), [0]], names=["split", "seed"]
    )
    run = SimpleNamespace(arm=lambda arm: SimpleNamespace(augmenter=arm in paints or None))
    table = pd.DataFrame(values, index)
    return decision_of(run, [], pd.DataFrame({"arm": list(values)}), {}, table)


def test_arms_whose_runs_failed_on_other_splits_end_no_comparison():
    nan = math.nan
    assert decided({"original": [0.5, nan], "mixup": [nan, 0.6]}) is None
    several = decided({"original": [0.5, nan, 0.5, 0.6], "mixup": [nan, 0.6, nan, nan], "cutmix": [0.6] * 4})
    assert several.looked_at == 1


def test_two_shown_arms_that_share_no_run_are_not_compared():
    nan = math.nan
    gains = [0.1, 0.11, 0.09]
    apart = decided(
        {
            "original": [0.5] * 6,
            "mixup": [0.5 + gap for gap in gains] + [nan] * 3,
            "dcgan": [nan] * 3 + [0.5 + 2 * gap for gap in gains],
        },
        ("dcgan",),
    )
    assert (apart.kind, apart.arm, apart.over) == ("paint nothing", "mixup", None)
