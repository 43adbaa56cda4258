"""Near copies: found whatever was done to size, storage, light or side; strangers are none."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance

import genaug.cli as cli
import genaug.near_copies as by_features
from genaug import datasets
from genaug.audit import as_findings
from genaug.core import LabeledImages
from genaug.data.duplicates import near_copies, near_limit
from genaug.data.pictures import is_blank, thumbnail
from genaug.near_copies import (
    CEILING,
    FLOOR,
    Prints,
    Side,
    aligned_correlation,
    audit_near_features,
    limit_from,
    make_sides,
    near_findings,
    nearest,
    read_prints,
    search,
    small_grey,
)
from genaug.photographs import photographs, random_crop
from genaug.roles import features_for


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

    def few(images):
        return images[list(range(0, len(images), max(1, len(images) // 300)))]

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


# ---- by features and aligned pixels


class Colours:
    "A stand-in for a network that costs nothing: the mean colours of a coarse grid and of its mirror image."

    name = "colours"

    def features(self, images, batch_size=128):
        grids = [
            np.asarray(
                Image.fromarray(np.repeat(images.image(index), 3 // images.image(index).shape[2], 2)).resize(
                    (4, 4)
                ),
                float,
            )
            for index in range(len(images))
        ]
        return np.stack([(grid + grid[:, ::-1]).ravel() for grid in grids])


class Nothing(Colours):
    def features(self, images, batch_size=128):
        return np.zeros((len(images), 7))


def clouds(count, seed, edge=64):
    "Pictures with large and small structure, each from its own draw."
    draw, made = np.random.default_rng(seed), []
    for _ in range(count):
        layers = [
            np.asarray(
                Image.fromarray(draw.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize(
                    (edge, edge), Image.BICUBIC
                ),
                float,
            )
            for cells in (3, 6, 12, 24)
        ]
        made.append((sum(layers) / 4 * 1.6 - 76).clip(0, 255).astype(np.uint8))
    return made


def labelled(arrays, name, classes=2, groups=None, start=0):
    places = range(start, start + len(arrays))
    return LabeledImages(
        list(arrays),
        [index % classes for index in places],
        [f"class {index}" for index in range(classes)],
        [f"{name}/{index}" for index in places],
        groups=groups,
    )


def searched(*sets, network=None, **options):
    network = network or Colours()
    return search(sets, [read_prints(images, network) for images in sets], **options)


def names_of(search, *sets):
    return {(sets[0].ids[first], sets[-1].ids[second]) for first, second, _ in search.pairs}


def stored(picture, quality):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def framed(picture):
    wide = round(0.06 * picture.height)
    frame = Image.new("RGB", (picture.width + 2 * wide, picture.height + 2 * wide))
    frame.paste(picture, (wide, wide))
    return frame


def marked(picture):
    picture = picture.copy()
    ImageDraw.Draw(picture, "RGBA").text(
        (10, picture.height // 2), "SAMPLE", fill=(255, 255, 255, 110), font_size=16
    )
    return picture


CHANGES = {
    "stored again": lambda picture: stored(picture, 40),
    "half the size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "cropped": lambda picture: picture.crop([round(share * picture.width) for share in (0.1, 0.1, 0.9, 0.9)]),
    "cropped to a corner": lambda picture: picture.crop(
        (0, 0, round(0.8 * picture.width), round(0.8 * picture.height))
    ),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned": lambda picture: picture.rotate(4, Image.Resampling.BICUBIC),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.3),
    "grey": lambda picture: picture.convert("L"),
    "framed": framed,
    "marked": marked,
}


@pytest.fixture(scope="module")
def parts():
    "Crops of photographs, the left halves as training and the right halves as test."
    draw = np.random.default_rng(5)
    made = {}
    for part in ("train", "test"):
        actual = [
            ((random_crop(photo, (80, 200), draw, 128) * 255).round().astype(np.uint8), word)
            for word, photos in photographs(part).items()
            for photo in photos
            for _ in range(5)
        ]
        words = sorted({word for _, word in actual})
        made[part] = LabeledImages(
            [array for array, _ in actual],
            [words.index(word) for _, word in actual],
            words,
            [f"{part}/{word}/{index % 5}" for index, (_, word) in enumerate(actual)],
        )
    return made


@pytest.fixture(scope="module")
def network(parts):
    return features_for("near-duplicates", parts)


@pytest.fixture(scope="module")
def planted(parts, network):
    "Each change of one training picture, all of different ones, put into the test; what was found."
    train, words = parts["train"], ("motorcycle", "tissue", "retina", "coins", "fur")
    sources = [f"train/{word}/{index}" for index in (1, 3) for word in words]
    copies = [
        np.asarray(change(Image.fromarray(train.image(name))))
        for name, change in zip(sources, CHANGES.values())
    ]
    test = parts["test"] + LabeledImages(
        copies, train.select(sources).targets, train.class_names, [f"test/{name}" for name in CHANGES]
    )
    actual = searched(train, test, network=network)
    return actual, names_of(actual, train, test), dict(zip(CHANGES, sources))


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_photograph_between_train_and_test_is_found(planted, name):
    _, pairs, sources = planted
    assert (sources[name], f"test/{name}") in pairs


def test_no_stranger_is_among_what_is_found(planted):
    actual, pairs, _ = planted
    assert actual.limit.wrong == 0
    assert all(
        first.split("/")[1] == "bricks" for first, second in pairs if second.split("/")[1] not in CHANGES
    )


def test_photographs_that_share_nothing_are_quiet(parts, network):
    actual = searched(parts["train"], parts["test"], network=network)
    assert len(actual.pairs) <= 1  # bricks repeat themselves
    assert actual.limit.upper < 0.06


@pytest.mark.parametrize(
    "name",
    [
        "textures",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("digits", "digit-scenes", "many-digits", "lesions")
        ),
    ],
)
def test_embedded_sets_are_quiet(name):
    sets = {
        part: images[list(range(0, len(images), max(1, len(images) // 60)))]
        for part, images in datasets.load(name).items()
        if part in ("train", "test")
    }
    features = searched(
        sets["train"], sets["test"], network=features_for("near-duplicates", datasets.load(name))
    )
    assert features.limit.wrong == 0
    assert len({second for _, second, _ in features.pairs}) <= 1


def test_pictures_of_one_group_are_no_leak_and_of_two_groups_are_one():
    arrays = clouds(24, 1)
    copy = [np.ascontiguousarray(arrays[3][6:58, 6:58]), *clouds(23, 2)]
    train = labelled(arrays, "train", groups=[f"patient {index}" for index in range(24)])
    groups = ["patient 3", *(f"other {index}" for index in range(23))]
    apart = ["patient 77", *groups[1:]]
    assert (
        names_of(searched(train, labelled(copy, "test", groups=groups)), *[train, labelled(copy, "test")])
        == set()
    )
    assert names_of(searched(train, labelled(copy, "test", groups=apart)), train, labelled(copy, "test")) == {
        ("train/3", "test/0")
    }


@pytest.mark.parametrize("block", [1, 50, 1000, 10**9])
@pytest.mark.parametrize("strangers", [False, True])
def test_blocks_equal_brute_force(block, strangers):
    draw = np.random.default_rng(3)
    images = labelled(
        [np.zeros((8, 8, 3), np.uint8)] * 60,
        "row",
        5,
        [f"group {index // 2}" if index < 20 else "" for index in range(60)],
    )
    prints = Prints(
        torch.as_tensor(draw.normal(size=(60, 9)), dtype=torch.float32),
        np.zeros((60, 48, 48), np.uint8),
        np.zeros((60, 16, 16), np.uint8),
        tuple(map(str, range(60))),
    )
    (side,) = make_sides([images], [prints])
    similarity = (side.rows @ side.rows.T).numpy()
    for position in range(60):
        similarity[position, position] = -np.inf
        if position < 20:
            similarity[position, position ^ 1] = -np.inf
        if strangers:
            similarity[position, position % 5 :: 5] = -np.inf
    expected = np.argsort(-similarity, 1)[:, :3]
    assert (
        nearest(side, side, torch.arange(60), True, strangers, block=block)[1].numpy().tolist()
        == expected.tolist()
    )


def test_no_block_is_larger_than_it_may_be(monkeypatch):
    side = Side(torch.randn(3000, 4), torch.ones(3000, 1), torch.arange(3000), None)
    sizes, topk = [], torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor,
        "topk",
        lambda self, *given, **named: (sizes.append(self.numel()), topk(self, *given, **named))[1],
    )
    nearest(side, side, torch.arange(3000), True, block=30_000)
    assert len(sizes) == 300
    assert max(sizes) <= 30_000


def test_the_order_of_files_does_not_matter():
    arrays, other = clouds(70, 4), clouds(70, 5)
    other[10], other[20] = arrays[30][:52, :52], arrays[41][:, ::-1]
    train, test, draw = (
        labelled(arrays, "train", 3),
        labelled([np.ascontiguousarray(array) for array in other], "test", 3),
        np.random.default_rng(0),
    )
    turned = [images[draw.permutation(70).tolist()] for images in (train, test)]
    left, right = searched(train, test), searched(*turned)
    assert names_of(left, train, test) == {("train/30", "test/10"), ("train/41", "test/20")}
    assert names_of(right, *turned) == names_of(left, train, test)
    assert right.limit[:4] == pytest.approx(left.limit[:4], abs=1e-5)
    assert right.limit.within == pytest.approx(left.limit.within, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_stated_rate_holds_for_a_fresh_sample(seed):
    draw = np.random.default_rng(seed)
    scores = np.tanh(draw.normal(0.85, 0.2, 100_400))
    limit = limit_from(scores[:400])
    assert FLOOR < limit.value < CEILING
    fresh = (scores[400:] >= limit.value).mean()
    assert fresh <= limit.upper
    assert fresh < 0.005


def test_the_bound_is_that_of_clopper_and_pearson():
    assert limit_from(np.zeros(100)).upper == pytest.approx(1 - 0.05 ** (1 / 100))  # none of n
    few = limit_from(np.zeros(49))
    assert (few.value, few.upper) == (FLOOR, 1.0)
    assert "too few" in few.sentence()


def test_copies_with_two_labels_do_not_open_the_limit_and_are_named():
    arrays = clouds(60, 6)
    arrays += [np.ascontiguousarray(array[:54, :54]) for array in arrays[:6]]
    images = labelled(arrays[:60], "row", 2) + labelled(arrays[60:], "copy", 2, start=1)
    heard = {
        finding.kind: finding for finding in near_findings({"all": images}, "features", network=Colours())
    }
    assert heard["near-copies-across-classes"].severity == "warning"
    assert heard["near-copies-across-classes"].message.startswith("6 pair(s)")


def test_within_a_class_is_a_note():
    arrays = clouds(30, 7)
    images = labelled(arrays, "row", 2) + labelled([np.ascontiguousarray(arrays[8][4:60, 4:60])], "copy", 2)
    heard = near_findings({"train": images}, "features", network=Colours())
    assert [(finding.kind, finding.severity) for finding in heard] == [("near-copies-within-class", "note")]
    assert "'row/8' and 'copy/0'" in heard[0].message


def test_a_test_part_that_is_all_copies_is_still_named():
    arrays = clouds(40, 8)
    copies = labelled([np.ascontiguousarray(array[3:61, 3:61]) for array in arrays], "test")
    assert len(searched(labelled(arrays, "train"), copies).pairs) > 20


def test_what_the_hash_reports_is_not_reported_twice():
    arrays = clouds(20, 9)
    test = [
        np.ascontiguousarray(arrays[2][:, ::-1]),
        np.ascontiguousarray(arrays[5][8:, 8:]),
        *clouds(18, 10),
    ]
    sets = {"train": labelled(arrays, "train"), "test": labelled(test, "test")}
    beside = [finding.message for finding in near_findings(sets, network=Colours())]
    alone = [finding.message for finding in near_findings(sets, beside_hash=False, network=Colours())]
    assert beside[0].startswith("1 pair(s)")
    assert "'train/5' and 'test/1'" in beside[0]
    assert alone[0].startswith("2 pair(s)")


@pytest.mark.parametrize(
    "sets",
    [
        {},
        {"all": 0},
        {"all": 1},
        {"train": 1, "test": 1},
        {"train": 0, "test": 3},
        {"train": 2, "test": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [Colours, Nothing])
def test_few_pictures_do_not_break_the_search(sets, kind):
    made = {part: labelled(clouds(count, index), part, 1) for index, (part, count) in enumerate(sets.items())}
    assert near_findings(made, "features", network=kind()) == ()


def test_zero_features_leave_the_decision_to_the_pixels():
    arrays = clouds(3, 11)
    train, test = (
        labelled(arrays, "train", 1),
        labelled([np.ascontiguousarray(arrays[1][5:60, 5:60])], "test", 1),
    )
    assert names_of(searched(train, test, network=Nothing()), train, test) == {("train/1", "test/0")}


def test_grey_even_and_missing_pictures_are_compared_or_left_alone(tmp_path):
    grey = [np.asarray(Image.fromarray(array).convert("L")) for array in clouds(3, 12)]
    even = [np.full((20, 30, 3), level, np.uint8) for level in (0, 0, 200)]
    train = labelled([*grey, *even, tmp_path / "gone.png"], "train", 1)
    test = labelled([np.repeat(grey[0][:, ::-1, None], 3, 2), np.full((9, 9), 200, np.uint8)], "test", 1)
    assert names_of(searched(train, test), train, test) == {("train/0", "test/0")}


@pytest.mark.parametrize(
    "change", [lambda image: image, lambda image: image[:, ::-1], lambda image: image // 2 + 60]
)
def test_brightness_contrast_and_a_mirror_change_no_score(change):
    first, other = (small_grey(array) for array in clouds(2, 13))
    assert aligned_correlation(first[None], change(first)[None])[0] > 0.99
    assert aligned_correlation(first[None], change(other)[None])[0] < 0.7


def test_a_negative_is_no_copy():
    left = small_grey(clouds(1, 13)[0])
    assert aligned_correlation(left[None], 255 - left[None])[0] < 0.7


# ---- where a user meets them


@pytest.fixture(scope="module")
def folder(tmp_path_factory, parts):
    home = tmp_path_factory.mktemp("near") / "photos"
    arrays = [parts["train"].image(index) for index in range(0, 55, 3)] + [
        parts["test"].image(index) for index in range(0, 55, 4)
    ]
    source = parts["train"].image("train/motorcycle/2")
    arrays = [*arrays[:3], source, *arrays[4:32]]
    for position, array in enumerate([*arrays, source[13:115, 13:115]]):
        part = "test" if position >= 19 else "train"
        path = home / part / ("cat", "dog")[position % 2] / f"{position}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    return home


@pytest.mark.parametrize(
    "near, kinds",
    [
        ("auto", {"near-copies-train-test"}),
        ("features", {"near-copies-train-test"}),
        ("hash", set()),
        ("none", set()),
    ],
)
def test_check_names_a_cropped_leak(folder, near, kinds, capsys):
    assert cli.run(["check", str(folder), "--near", near, "--json", "--quiet"]) == 0
    findings = {
        finding["kind"]: finding["message"] for finding in json.loads(capsys.readouterr().out)["findings"]
    }
    near_kinds = {kind for kind in findings if kind.startswith("near")}
    assert near_kinds - {"near-copies-across-classes"} == kinds  # crops of one photograph overlap
    if kinds:
        assert "'train/dog/3.png' and 'test/cat/32.png'" in findings["near-copies-train-test"]


def test_check_says_what_it_left_out_and_how_to_ask(folder, monkeypatch, capsys):
    monkeypatch.setattr(by_features, "AUTO_PICTURES", 30)
    assert cli.run(["check", str(folder), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "33 pictures were compared by a perceptual hash alone" in said
    assert "--near features" in said
    assert "33.png" not in said


def test_a_built_in_set_stays_quick_and_silent(monkeypatch, capsys):
    monkeypatch.setattr(
        by_features, "read_prints", lambda *given: pytest.fail("a built-in set was looked at by features")
    )
    assert cli.run(["check", "digits"]) == 0
    assert "near" not in capsys.readouterr().out


def test_a_wrong_word_is_refused_with_the_right_ones(folder, capsys):
    assert cli.run(["check", str(folder), "--near", "feature"]) == 2
    assert "did you mean 'features'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "source, learned, on_purpose", [([["train/4", 1.0]], 0, 1.0), ([["train/7", 1.0]], 1, 0.0), ([], 1, 0.0)]
)
def test_the_audit_tells_copying_on_purpose_from_memory(source, learned, on_purpose):
    arrays = clouds(20, 15)
    train, test = labelled(arrays, "train"), labelled(clouds(20, 16), "test")
    made = LabeledImages(
        [np.ascontiguousarray(arrays[4][:54, 8:])],
        [0],
        train.class_names,
        ["row0"],
        info=[{"sources": source}],
    )
    rows = {row.check: row for row in audit_near_features(made, train, test, network=Colours())}
    assert rows["no_memorised_copy"].value == learned
    assert rows["copies_of_source@features"].value == on_purpose
    assert rows["no_test_lookalike"].passed is True


def test_a_synthetic_copy_of_a_test_picture_is_a_warning():
    train, test = labelled(clouds(20, 15), "train"), labelled(clouds(20, 16), "test")
    made = LabeledImages(
        [np.ascontiguousarray(test.image(9)[:54, :54])],
        [0],
        train.class_names,
        ["row0"],
        info=[{"sources": [["train/0", 1.0]]}],
    )
    rows = audit_near_features(made, train, test, network=Colours())
    warned = [finding for finding in as_findings(rows) if finding.severity == "warning"]
    assert [finding.kind for finding in warned] == ["no_test_lookalike"]
    assert "row0 (like test/9)" in warned[0].message
