"""Embedded data: the bytes are what they were; no test pixel and no test digit is ever used in training."""

import time

import numpy as np
import pytest
from PIL import Image

from genaug import datasets, digits, photographs, tiny
from genaug.identity import content_hash
from genaug.messages import GenaugError

# The digest of the sets as they were when `tiny-1` was trained and the first results were measured; another
# version of Pillow or scikit-learn that changes a pixel shows here.
DIGEST = {
    "digit-scenes": "a5b4ce330c94eb01035a099bc196933704f064db9d08ce575b9ca1a1652bb18c",
    "digits": "f26900fd2e884ed0e713e287f6b69b0e3065a6c2268982a3b079a233e1394eba",
    "textures": "a52172207fa0b3fccb4d7bc79ea4aa7ea7516d27280617b1e583903ff0b77889",
    "lesions": "b14914808932ccf9903d433dd90061b3af673d387a5b81a0af269bdda7dbde88",
    "many-digits": "6152cafdec2cd92b9e6f8a56bd0d7aa79ae79d493e594c89195a7c08cd1b2798",
}


@pytest.fixture(scope="module")
def scenes():
    return datasets.load("digit-scenes")


@pytest.mark.parametrize("name", datasets.names())
def test_content_is_what_it_was(name):
    assert (
        content_hash({part: images.fingerprint() for part, images in datasets.load(name).items()})
        == DIGEST[name]
    )


def test_built_quickly():
    digits.digit_scenes.cache_clear()
    began = time.process_time()
    datasets.load("digit-scenes")
    assert time.process_time() - began < 6, (
        "about 2 seconds of computing on one core of the machine it was written on"
    )


def test_train_and_test_digits_are_disjoint(scenes):
    used = {part: {row["digit"] for row in images.info} for part, images in scenes.items()}
    assert not used["train"] & used["test"]
    assert not used["train"] & used["shifted"]
    assert len(used["train"]) == 880
    assert len(used["train"] | used["test"]) == 1797


def test_labels_are_the_scans_labels(scenes):
    from sklearn.datasets import load_digits

    target = load_digits().target
    for images in scenes.values():
        assert np.array_equal(images.targets, target[[row["digit"] for row in images.info]])
        assert all(
            row["caption"].startswith(f"a photo of a {images.class_names[label]} on ")
            for row, label in zip(images.info, images.targets)
        )


def test_halves_are_disjoint_and_complete():
    for photo in photographs.PHOTOGRAPHS:
        whole = photographs.read_photograph(photo)
        left, right = (
            photographs.photographs("train")[photo.word][0],
            photographs.photographs("test")[photo.word][0],
        )
        assert left.shape[1] + right.shape[1] == whole.shape[1]
        assert np.array_equal(whole[:, : left.shape[1]], left)
        assert np.array_equal(whole[:, left.shape[1] :], right)


class Record:
    "Stands in for the function that cuts crops, and notes from which pixels they come."

    def __init__(self, original):
        self.original, self.seen = original, []

    def __call__(self, pixels, *others, **options):
        self.seen.append(pixels)
        return self.original(pixels, *others, **options)


def allowed(seen, part):
    halves = [array for arrays in photographs.photographs(part).values() for array in arrays]
    return all(any(np.shares_memory(pixels, array) for array in halves) for pixels in seen)


@pytest.mark.parametrize("part", ["train", "test", "reserved"])
def test_scenes_use_only_their_own_pixels(part, monkeypatch):
    record = Record(digits.random_crop)
    monkeypatch.setattr(digits, "random_crop", record)
    digits.digit_scenes.__wrapped__(part, "natural")
    others = [other for other in ("train", "test", "reserved") if other != part]
    assert len(record.seen) > 800
    assert allowed(record.seen, part)
    assert not any(allowed(record.seen, other) for other in others)


def test_corpus_uses_only_training_halves(monkeypatch):
    record = Record(tiny.random_crop)
    monkeypatch.setattr(tiny, "random_crop", record)
    tiny.corpus(300, seed=5)
    assert len(record.seen) > 200
    assert allowed(record.seen, "train")
    assert len({id(pixels) for pixels in record.seen}) == len(photographs.PHOTOGRAPHS)


def test_crops_never_leave_the_given_pixels():
    inside = np.full((64, 64, 3), 255, np.uint8)
    outside = np.zeros((64, 128, 3), np.uint8)
    outside[:, :64] = inside
    rng = np.random.default_rng(0)
    assert all(
        photographs.random_crop(photographs.half(outside, "train"), (8, 64), rng).min() == 1
        for _ in range(50)
    )


def test_reserved_words_are_in_no_training_caption(scenes):
    reserved = set(photographs.caption_words(reserved=True))
    assert not reserved & {row["background"] for part in ("train", "test") for row in scenes[part].info}
    assert {row["background"] for row in scenes["shifted"].info} == reserved
    assert not reserved & set(tiny.corpus(300, seed=6).words)


def test_cells_of_the_shifted_test_are_all_filled(scenes):
    cells = list(scenes["shifted"].groups)
    assert len(set(cells)) == 4
    assert min(cells.count(cell) for cell in set(cells)) > 150


def test_correlated_changes_the_pool_only(scenes):
    correlated = datasets.load("digit-scenes", "correlated")
    assert correlated["test"].fingerprint() == scenes["test"].fingerprint()
    assert correlated["shifted"].fingerprint() == scenes["shifted"].fingerprint()
    assert correlated["train"].ids == scenes["train"].ids
    assert correlated["train"].fingerprint() != scenes["train"].fingerprint()
    rare = [cell in ("digits 0-4, close-up", "digits 5-9, outdoors") for cell in correlated["train"].groups]
    assert 0.02 < np.mean(rare) < 0.09


def test_background_says_nothing_in_the_natural_pool(scenes):
    table = np.array(
        [
            [
                sum(
                    row["background"] == word and label == digit
                    for row, label in zip(scenes["train"].info, scenes["train"].targets)
                )
                for word in photographs.caption_words()
            ]
            for digit in range(10)
        ]
    )
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 1.5 * 90  # chi-squared with 90 degrees of freedom


def test_digits_stay_inside_the_image(scenes):
    mask = digits.place_glyph(np.full((100, 100), 255, np.uint8), 20, (16, 16), 0, 0)
    assert abs(mask.sum() - 400) < 4
    assert mask[5:27, 5:27].sum() == pytest.approx(mask.sum())
    assert digits.place_glyph(
        np.full((100, 50), 255, np.uint8), 20, (16, 16), 0, 0, stretch=2.0
    ).sum() == pytest.approx(400, rel=0.01)


def test_every_colour_has_its_contrast_where_possible():
    rng = np.random.default_rng(0)
    gaps = [
        abs(digits.luminance(digits.random_colour(rng, (level,) * 3, 0.2)) - level)
        for level in np.linspace(0, 1, 50)
    ]
    assert np.mean(np.array(gaps) >= 0.2) > 0.9
    assert min(gaps) > 0.05


def test_photographs_are_read_only():
    with pytest.raises(ValueError):
        photographs.photographs("train")["grass"][0][0, 0] = 0


def test_names_that_do_not_exist():
    with pytest.raises(GenaugError, match="digit-scenes"):
        datasets.load("cifar")
    with pytest.raises(GenaugError, match="'natural'"):
        datasets.load("digits", "correlated")
    with pytest.raises(GenaugError, match="'reserved'"):
        photographs.photographs("all")
    with pytest.raises(GenaugError, match="digits"):
        datasets.suffixes("cifar")


def test_plain_digits_are_the_scans():
    images = datasets.load("digits")["train"]
    from sklearn.datasets import load_digits

    scan = load_digits().images[images.info[0]["digit"]]
    small = (
        np.asarray(Image.fromarray(images.image(0)).convert("L").resize((8, 8), Image.Resampling.BOX)) / 255
    )
    assert np.corrcoef(small.ravel(), scan.ravel())[0, 1] > 0.97


@pytest.fixture(scope="module")
def textures():
    return datasets.load("textures")


def test_texture_tiles_are_grey_and_equally_many(textures):
    assert {part: len(images) for part, images in textures.items()} == {
        "train": 800,
        "test": 400,
    }
    assert textures["train"].class_names == textures["test"].class_names
    for part, images in textures.items():
        assert set(images.counts().values()) == {100.0 if part == "train" else 50.0}
        assert all(images.image(index).shape == (64, 64, 1) for index in range(0, len(images), 37))


@pytest.mark.parametrize("part", ["train", "test"])
def test_textures_use_only_their_own_half(part, monkeypatch):
    seen = []
    original = photographs.texture_tile
    monkeypatch.setattr(
        photographs,
        "texture_tile",
        lambda pixels, *others: (seen.append(pixels), original(pixels, *others))[1],
    )
    photographs.texture_tiles.__wrapped__(part)
    halves = {
        word: [photographs.half(photographs.read_photograph(photo), which) for which in ("train", "test")]
        for word, photo in ((photo.word, photo) for photo in photographs.TEXTURES)
    }
    mine = [pair[part == "test"] for pair in halves.values()]
    number = len(seen) // 8
    assert all(np.array_equal(seen[number * label], mine[label]) for label in range(8))
    assert all(left.shape[1] + right.shape[1] > 400 for left, right in halves.values())


def test_no_texture_comes_from_a_reserved_photograph():
    reserved = {photo.file for photo in photographs.RESERVED}
    assert len({photo.word for photo in photographs.TEXTURES}) == 8
    assert not reserved & {photo.file for photo in photographs.TEXTURES}
    assert photographs.TEXTURES[-1].word == "empty"


def test_brightness_and_contrast_are_drawn_alike(textures):
    images = textures["train"]
    means, spreads = (
        np.array([measure(images.image(index).astype(float)) / 255 for index in range(800)]).reshape(8, 100)
        for measure in (np.mean, np.std)
    )
    assert means.mean(1).std() < 0.02
    assert spreads[:7].mean(1).std() < 0.01
    assert spreads[7].mean() < 0.4 * spreads[:7].mean()


def test_textures_have_no_other_condition():
    with pytest.raises(GenaugError, match="'natural'"):
        datasets.load("textures", "correlated")
    assert datasets.suffixes("textures") == ["in grey"]
