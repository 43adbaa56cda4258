"""Near copies: found whatever was done to size, storage, light or side; strangers are none."""

import numpy as np
import pytest
from PIL import Image

from genaug import datasets
from genaug.core import LabeledImages
from genaug.data import is_blank, near_copies, near_limit, thumbnail


def blocks(count, seed, edge=40):
    draw = np.random.default_rng(seed)
    return [
        np.kron(draw.integers(0, 256, (8, 8, 3)), np.ones((edge // 8, edge // 8, 1))).astype(np.uint8)
        for _ in range(count)
    ]


def small(arrays):
    return np.stack([thumbnail(array) for array in arrays])


@pytest.fixture(scope="module")
def scenes():
    return {
        part: images[list(range(0, len(images), 5))] for part, images in datasets.load("digit-scenes").items()
    }


@pytest.mark.parametrize(
    "name",
    [
        "digit-scenes",
        "textures",
        pytest.param("many-digits", marks=pytest.mark.long),
        pytest.param("lesions", marks=pytest.mark.long),
    ],
)
def test_parts_that_share_nothing_have_no_near_copies(name):
    sets = datasets.load(name)
    few = lambda images: images[list(range(0, len(images), max(1, len(images) // 300)))]
    assert len(near_copies(few(sets["train"]), few(sets["test"]))) <= 1


def test_gradients_of_light_are_no_copies_of_each_other():
    draw, down = np.random.default_rng(0), np.linspace(0, 60, 32)[:, None]
    skies = [
        (90 + down * draw.uniform(0.5, 1) + draw.normal(0, 2, (32, 32)))
        .clip(0, 255)
        .astype(np.uint8)[:, :, None]
        for _ in range(30)
    ]
    assert near_copies(small(skies)) == []


def test_even_pictures_have_no_copies():
    even = [np.full((20, 20, 3), level, np.uint8) for level in (0, 90, 255)]
    assert near_copies(small(even)) == []
    assert all(is_blank(array) for array in even)
    assert not is_blank(blocks(1, 0)[0])


def test_a_set_with_itself_gives_each_pair_once_and_no_picture_with_itself():
    arrays = blocks(20, 1)
    pairs = near_copies(small([*arrays, (arrays[4] * 0.5).astype(np.uint8)]))
    assert [pair[:2] for pair in pairs] == [(4, 20)]


def test_equal_pixels_are_at_distance_zero_and_come_first():
    arrays = blocks(20, 1)
    pairs = near_copies(small(arrays), small([(arrays[9] * 0.7 + 20).astype(np.uint8)[:, ::-1], arrays[3]]))
    assert [(first, second, mirrored) for first, second, _, mirrored in pairs] == [
        (3, 1, False),
        (9, 0, True),
    ]
    assert pairs[0][2] == pytest.approx(0, abs=1e-5)


def test_blocks_of_any_size_give_the_same(scenes):
    first, second = (
        small([images.image(position) for position in range(120)])
        for images in (scenes["train"], scenes["test"])
    )
    second[5] = first[7][:, ::-1]
    assert [pair[:2] for pair in near_copies(first, second, block=1)] == [
        pair[:2] for pair in near_copies(first, second)
    ]
    assert [pair[:2] for pair in near_copies(first, second)] == [(7, 5)]


def test_sets_and_thumbnails_are_the_same_question():
    arrays = blocks(12, 1)
    images = LabeledImages(arrays, [0] * 12, ["a"], [str(number) for number in range(12)])
    other = [np.asarray(Image.fromarray(arrays[2]).resize((33, 27)))]
    assert near_copies(images, small(other)) == near_copies(small(arrays), small(other))
    assert len(near_copies(images, small(other))) == 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_pictures_are_no_special_case(count):
    arrays = blocks(3, 1)
    pairs = near_copies(small(arrays)[:count], small([arrays[0]])[:1])
    assert [pair[:2] for pair in pairs] == ([(0, 0)] if count else [])


def test_the_limit_is_narrower_where_different_pictures_are_alike():
    base = blocks(1, 1)[0].astype(float)
    alike = [(0.9 * base + 0.1 * other).astype(np.uint8) for other in blocks(40, 2)]
    assert near_limit(small(alike)) < 0.01
    assert near_limit(small(blocks(40, 2))) > 0.08
    assert near_copies(small(alike)) == []


def test_twice_five_thousand_pictures_take_seconds_and_little_memory():
    draw = np.random.default_rng(0)
    first, second = (draw.integers(0, 256, (5000, 16, 16), dtype=np.uint8) for _ in range(2))
    second[123] = first[4567]
    assert [pair[:2] for pair in near_copies(first, second)] == [(4567, 123)]
