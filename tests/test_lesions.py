"""The phantoms: what the page says about sizes, units, slices, noise, window, patients and draws."""

import numpy as np
import pytest

from genaug import datasets, phantoms
from genaug.messages import GenaugError
from genaug.phantoms import (
    LESIONS,
    LesionPatient,
    ct_noise,
    draw_phantom,
    filtered,
    lesion_inside,
    patch_grid,
    show_window,
    slab_share,
)

QUIET = LesionPatient(110.0, 160.0, 0.0, 4.0, 0.0)


@pytest.fixture(scope="module")
def parts():
    return datasets.load("lesions")


def plain(label, radius=9.0, **changes):
    "A lesion class without chance in size, shape and kind."
    return LESIONS[label]._replace(radius=(radius, 0.0), atypical=(0, 0), lobes=0.0, mottle=0, **changes)


def test_counts_and_shift_are_the_papers(parts):
    assert {part: list(images.counts().values()) for part, images in parts.items()} == {
        "train": [433, 70, 178],
        "val": [115, 30, 157],
        "test": [128, 30, 149],
    }
    assert all(
        images.class_names == ("cyst", "hemangioma", "metastasis")
        and images.image(0).shape == (32, 32, 1)
        and images.image(0).dtype == np.uint8
        for images in parts.values()
    )


def test_no_patient_and_no_picture_is_in_two_parts(parts):
    groups = [set(images.groups) for images in parts.values()]
    pictures = [set(images.sha256) for images in parts.values()]
    for item in (groups, pictures):
        assert not item[0] & item[1]
        assert not (item[0] | item[1]) & item[2]
    assert [len(images) for images in parts.values()] == [
        len(set(images.sha256)) for images in parts.values()
    ]
    lesions_of = np.bincount(np.unique(parts["train"].groups, return_inverse=True)[1])
    assert 2 < lesions_of.mean() < 3.2
    assert lesions_of.max() > 4


def test_a_draw_can_be_repeated_and_another_is_other(parts):
    phantoms.lesion_patches.cache_clear()
    assert phantoms.lesion_patches("val", 0).fingerprint() == parts["val"].fingerprint()
    other = phantoms.lesion_patches("val", 7)
    assert not set(other.sha256) & set(parts["val"].sha256)
    assert not set(other.ids) & set(parts["val"].ids)
    assert not set(other.groups) & set(parts["val"].groups)
    with pytest.raises(GenaugError, match="draws are counted from 0"):
        datasets.load("lesions", data_draw=-1)


def test_one_lesion_does_not_depend_on_the_others(parts):
    rng = np.random.default_rng([5, 0, 2, 1 + 2, 17])
    who = int(rng.integers(120))
    patient = phantoms.draw_patient(np.random.default_rng([5, 0, 2, 0, who]))
    name = "metastasis/test-0-017.png"
    assert np.array_equal(show_window(draw_phantom(LESIONS[2], patient, rng)[0]), parts["test"].image(name))
    assert parts["test"].groups[parts["test"].index([name])[0]] == f"test-0-patient-{who:03d}"


@pytest.mark.parametrize("depth, thickness", [(0.0, 3.0), (1.3, 5.0), (-0.4, 0.7)])
def test_slices_together_hold_the_whole_ellipsoid(depth, thickness):
    grid = patch_grid(200, 20.0, (0.3, 0.8), 1.1)
    stack = [
        slab_share(*grid, (4.0, 3.0, 5.0), depth + number * thickness, thickness) for number in range(-12, 13)
    ]
    assert sum(share.sum() for share in stack) * 0.1**2 * thickness == pytest.approx(
        4 / 3 * np.pi * 60, rel=2e-3
    )
    assert max(share.max() for share in stack) <= 1
    assert min(share.min() for share in stack) == 0


def test_a_column_in_the_middle_has_its_closed_form():
    middle = np.zeros(1)
    assert slab_share(middle, middle, (2, 2, 2), 0.0, 5.0) == pytest.approx(0.8)  # 4 mm of 5
    # half of it reaches below
    assert slab_share(middle, middle, (2, 2, 2), 2.5, 5.0) == pytest.approx(0.4)
    assert slab_share(middle, middle, (9, 9, 9), 0.0, 5.0) == 1
    assert slab_share(middle, middle, (2, 2, 2), 5.0, 5.0) == 0
    assert slab_share(middle + 3.0, middle, (4, 4, 4), 0.0, 20.0, 2.0) > slab_share(
        middle + 3.0, middle, (4, 4, 4), 0.0, 20.0
    )


def test_blur_and_fineness_keep_the_mean_hounsfield_value():
    drawn = np.random.default_rng(0).uniform(-50, 200, (64, 64))
    assert filtered(drawn, 0.3, lambda frequency: phantoms.blur_gain(frequency, 0.6)).mean() == pytest.approx(
        drawn.mean(), abs=1e-9
    )
    share = slab_share(*patch_grid(128, 20.0), (5, 4, 3), 0.5, 4.0)
    assert slab_share(*patch_grid(32, 20.0), (5, 4, 3), 0.5, 4.0).mean() == pytest.approx(
        share.mean(), rel=0.01
    )


def test_small_lesions_are_paler_by_partial_volume():
    thick, depths = QUIET._replace(thickness=5.0), []
    for radius in (2.0, 4.0, 12.0):
        actual = [
            draw_phantom(plain(0, radius, core=(10, 0)), thick, np.random.default_rng(seed), noisy=False)[
                0
            ].min()
            for seed in range(12)
        ]
        depths.append(np.mean(actual))
    assert depths[0] > depths[1] + 15 > depths[2] + 15
    assert depths[2] == pytest.approx(10, abs=3)


@pytest.mark.parametrize("label, low, high", [(0, -6, 30), (1, 30, 96), (2, 25, 96)])
def test_contrast_is_as_the_table_says(label, low, high):
    quiet = plain(label, nodules=(0, 0), rim=(0, 0, 0, 0, 0))
    middle = [
        draw_phantom(quiet, QUIET, np.random.default_rng(seed), noisy=False)[0][15:17, 15:17].mean()
        for seed in range(60)
    ]
    assert low < np.percentile(middle, 10)
    assert np.percentile(middle, 90) < high
    assert max(middle) <= 95 + 1e-6


def test_a_rim_is_a_shell_of_the_stated_width_and_brightness():
    grid = patch_grid(128, 20.0)
    axes, thin = (6.0, 6.0, 6.0), QUIET._replace(thickness=0.05)
    ringed = plain(2, core=(50, 0), rim=(1, 40, 0, 0.25, 0.25))
    inside = lesion_inside(
        ringed,
        thin,
        (*grid, axes, 0.0, 1.0),
        slab_share(*grid, axes, 0.0, 0.05),
        0.0,
        np.random.default_rng(0),
    )
    far = np.hypot(*grid)
    assert np.allclose(inside[far < 4.4], 50)
    assert np.allclose(inside[(far > 4.6) & (far < 5.9)], 90)


def test_only_hemangiomas_have_bright_nodules():
    quiet = LesionPatient(100.0, 160.0, 0.0, 3.0, 0.0)
    grid = patch_grid(64, 36.0)
    share = slab_share(*grid, (9.0, 9.0, 9.0), 0.0, 3.0)
    brightest = [
        [
            np.max(
                lesion_inside(
                    plain(label),
                    quiet,
                    (*grid, (9.0, 9.0, 9.0), 0.0, 1.0),
                    share,
                    0.0,
                    np.random.default_rng(seed),
                )
            )
            for seed in range(30)
        ]
        for label in (0, 1)
    ]
    assert max(brightest[0]) < 40
    assert np.mean(np.array(brightest[1]) > 90) > 0.9
    assert max(brightest[1]) <= 160


@pytest.mark.parametrize("deviation", [8.0, 20.0])
def test_noise_has_its_deviation_and_its_spectrum(deviation):
    fields = np.stack([ct_noise(np.random.default_rng(seed), 32, 0.625, deviation) for seed in range(300)])
    assert fields.std() == pytest.approx(deviation, rel=0.04)
    assert abs(fields.mean()) < 0.03 * deviation
    power = np.abs(np.fft.fft2(fields)).reshape(300, -1) ** 2
    frequency = np.hypot(np.fft.fftfreq(32, 0.625)[:, None], np.fft.fftfreq(32, 0.625)).ravel()
    near, peak, far = (
        power[:, (frequency > low) & (frequency < high)].mean()
        for low, high in ((0.03, 0.08), (0.25, 0.32), (0.9, 1.2))
    )
    assert near < 0.5 * peak
    assert far < 0.1 * peak


def test_the_window_clips_and_is_linear_between():
    assert show_window(np.array([[-1000.0, -50.0, 0.0, 75.0, 200.0, 900.0]])).ravel().tolist() == [
        0,
        0,
        51,
        128,
        255,
        255,
    ]
    assert show_window(np.array([[40.0]]), (0.0, 80.0)).item() == 128


def test_captions_and_words_fit_together(parts):
    assert datasets.suffixes("lesions") == ["on a CT scan"]
    assert all(
        row["caption"] == f"a photo of a {parts['train'].class_names[label]} on a CT scan"
        for row, label in zip(parts["train"].info, parts["train"].targets)
    )


def test_the_judges_lesions_are_balanced_and_their_own(parts, monkeypatch):
    assert phantoms.LESION_COUNTS["judging"] == (1000, 1000, 1000)
    monkeypatch.setattr(phantoms, "LESION_COUNTS", {**phantoms.LESION_COUNTS, "judging": (9, 9, 9)})
    phantoms.lesion_patches.cache_clear()
    pool = datasets.judging_pool("lesions")
    phantoms.lesion_patches.cache_clear()
    assert list(pool.counts().values()) == [9, 9, 9]
    assert not set(pool.groups) & {name for images in parts.values() for name in images.groups}
