"""What enters through Python is in the declared form, or is refused at once with the sentence that says how
to convert it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.pictures import NotFinite, checked_image, encode_png, finite_rows, to_tensor, to_uint8
from genaug.plans import Budget, head_and_tail
from genaug.settings import settings_of

GOOD = np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)

UNDECLARED = {
    "floats in 0..1": (GOOD / 255, r"array \* 255"),
    "floats in -1..1": (GOOD / 127.5 - 1, r"array \+ 1"),
    "floats in 0..255": (GOOD.astype(float), r"array.round\(\)"),
    "half floats": ((GOOD / 255).astype(np.float16), r"array \* 255"),
    "NaN": (np.full((4, 4, 3), np.nan), "not finite"),
    "infinity": (np.full((4, 4), np.inf, np.float32), "not finite"),
    "uint16": (GOOD.astype(np.uint16) * 257, "array / 257"),
    "12 bits": (GOOD.astype(np.uint16) * 16, "divide by 16"),
    "bool": (GOOD > 100, "astype.np.uint8. . 255"),
    "int64": (GOOD.astype(np.int64), "clip"),
    "int8": (GOOD.astype(np.int8), "clip"),
    "object": (GOOD.astype(object), "tolist"),
    "a torch tensor": (torch.rand(3, 8, 8), "to_uint8"),
    "a torch tensor of bytes": (torch.zeros(8, 8, 3, dtype=torch.uint8), "torch tensor"),
    "a PIL picture": (Image.fromarray(GOOD), "np.asarray"),
    "RGBA": (np.zeros((6, 5, 4), np.uint8), "transparency"),
    "channels first": (np.zeros((3, 6, 5), np.uint8), r"transpose\(1, 2, 0\)"),
    "grey, channel first": (np.zeros((1, 6, 5), np.uint8), "transpose"),
    "two channels": (np.zeros((6, 5, 2), np.uint8), r"array\[:, :, 0\]"),
    "five channels": (np.zeros((6, 7, 5), np.uint8), r"\(H, W, 3\)"),
    "empty": (np.zeros((0, 0, 3), np.uint8), "empty"),
    "no channel": (np.zeros((6, 5, 0), np.uint8), "empty"),
    "a batch": (np.zeros((2, 6, 5, 3), np.uint8), "list"),
    "one line": (np.zeros(5, np.uint8), r"\(H, W, 3\)"),
    "a number": (np.array(3, np.uint8), r"\(H, W, 3\)"),
    "lists": (GOOD.tolist(), "np.array"),
    "a masked array": (np.ma.masked_array(GOOD, GOOD > 9), "filled"),
    "bytes": (b"\x89PNG", "file"),
    "None": (None, "NoneType"),
    "a complex array": (GOOD.astype(complex), "complex"),
    "text in an array": (np.array([["a"]]), "str"),
}
IDS = list(UNDECLARED)


def single(item, **fields):
    return LabeledImages([item], [0], ["cat"], ["a.png"], **fields)


# ---- arrays


@pytest.mark.parametrize(("item", "words"), UNDECLARED.values(), ids=IDS)
def test_a_set_refuses_what_is_not_declared_and_says_how_to_convert_it(item, words):
    with pytest.raises(GenaugError, match=words):
        single(item)


@pytest.mark.parametrize(("item", "words"), UNDECLARED.values(), ids=IDS)
def test_so_do_the_functions_that_take_arrays(item, words):
    for take in (checked_image, lambda array: to_tensor([array]), encode_png):
        with pytest.raises(GenaugError, match=words):
            take(item)


@pytest.mark.parametrize(
    ("item", "way"),
    [
        (GOOD / 255, lambda array: (array * 255).round().clip(0, 255).astype(np.uint8)),
        (GOOD / 127.5 - 1, lambda array: ((array + 1) * 127.5).round().clip(0, 255).astype(np.uint8)),
        (GOOD.astype(float), lambda array: array.round().clip(0, 255).astype(np.uint8)),
        (GOOD.astype(np.uint16) * 257, lambda array: (array / 257).round().astype(np.uint8)),
        (GOOD.transpose(2, 0, 1), lambda array: array.transpose(1, 2, 0)),
        (GOOD.astype(np.int32), lambda array: array.clip(0, 255).astype(np.uint8)),
    ],
)
def test_the_conversion_in_the_sentence_gives_the_picture(item, way):
    with pytest.raises(GenaugError):
        single(item)
    assert np.array_equal(single(way(item)).image(0), GOOD)


def test_the_conversion_of_a_tensor_gives_the_picture():
    tensor = torch.from_numpy(GOOD).permute(2, 0, 1).float().div(127.5).sub(1)
    with pytest.raises(GenaugError, match="add 1 and divide by 2"):
        single(tensor)
    assert np.array_equal(to_uint8(tensor[None].add(1).div(2))[0], GOOD)


def test_declared_forms_are_taken_as_they_are(tmp_path):
    stored = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, GOOD.shape)
    stored[:] = GOOD
    stored.flush()
    for item in (
        GOOD,
        GOOD[::-1][::-1],
        np.asfortranarray(GOOD),
        np.load(tmp_path / "a.npy", mmap_mode="r"),
        np.broadcast_to(GOOD, GOOD.shape),
    ):
        images = single(item)
        assert np.array_equal(images.image(0), GOOD)
        assert images.fingerprint() == single(GOOD).fingerprint()
        assert torch.equal(images.batch(), single(GOOD).batch())
        assert encode_png(item) == encode_png(GOOD)
    assert single(GOOD[:, :, 0]).image(0).shape == (6, 5, 1)


def test_a_stack_of_images_is_a_list_of_them():
    stack = np.stack([GOOD, GOOD[::-1]])
    images = LabeledImages(stack, [0, 0], ["cat"], ["a", "b"])
    assert np.array_equal(images.image("b"), GOOD[::-1])
    assert LabeledImages(stack[:, :, :, 0], [0, 0], ["cat"], ["a", "b"]).image(0).shape == (6, 5, 1)


@pytest.mark.parametrize(
    "pixels",
    [
        GOOD,
        np.zeros((2, 3, 6, 5), np.uint8),
        np.zeros((2, 6, 5, 3)),
        torch.zeros(2, 6, 5, 3),
        "ab",
        b"ab",
        {"a": GOOD},
        5,
        None,
        np.ma.masked_array(np.zeros((2, 6, 5, 3), np.uint8)),
    ],
    ids=[
        "one image",
        "channels first",
        "floats",
        "a tensor",
        "text",
        "bytes",
        "a mapping",
        "a number",
        "None",
        "masked",
    ],
)
def test_pixels_that_are_no_list_of_images_are_refused(pixels):
    with pytest.raises(GenaugError):
        LabeledImages(pixels, [0, 0], ["cat"], ["a", "b"])
    with pytest.raises(GenaugError):
        LabeledImages(pixels, [0] * 6, ["cat"], list("abcdef"))


def test_a_missing_file_is_refused_when_it_is_asked_for(tmp_path):
    images = LabeledImages([tmp_path / "gone.png"], [0], ["cat"], ["gone.png"])
    with pytest.raises(GenaugError, match="gone.png"):
        images.image(0)


# ---- tensors


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_never_a_picture(value):
    batch = torch.rand(4, 3, 5, 5)
    batch[2, 1, 0, 0] = value
    with pytest.raises(NotFinite, match="1 of 4") as caught:
        to_uint8(batch)
    assert caught.value.positions == (2,)
    assert caught.value.arrays[2] is None
    assert np.array_equal(caught.value.arrays[3], to_uint8(batch[3:])[0])
    assert finite_rows(batch).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        torch.zeros(3, 4, 4),
        torch.zeros(2, 4, 4, 3),
        torch.zeros(2, 4, 4, 4),
        np.zeros((1, 3, 4, 4), np.float32),
        torch.zeros(1, 3, 4, 4, dtype=torch.bool),
        [torch.zeros(3, 4, 4)],
    ],
)
def test_to_uint8_refuses_other_tensors(images):
    with pytest.raises(GenaugError, match=r"\(N, 1 or 3, H, W\)"):
        to_uint8(images)


def test_no_images_are_no_images():
    assert to_uint8(torch.zeros(0, 3, 4, 4)) == []
    assert to_tensor([]).shape == (0, 3, 0, 0)


@pytest.mark.parametrize(
    "options", [{"channels": 4}, {"channels": 0}, {"size": 0}, {"size": -3}, {"size": 2.5}, {"size": "8"}]
)
def test_to_tensor_refuses_impossible_sizes(options):
    with pytest.raises(GenaugError, match="1 or 3 channels"):
        to_tensor([GOOD], **options)


# ---- labels


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        ([0, 1, 2], "single"),
        ([-1, 0], "single"),
        (["cat", "dog"], "single"),
        ("cat", "single"),
        ([None, 0], "single"),
        ([[1, 0], [math.nan, 0]], "single"),
        ([[1, 0], [math.nan, 0]], "multi"),
        ([[1, 0]], "single"),
        ([[1, 0], [1]], "single"),
        ([[1, 0, 0], [0, 1, 0]], "single"),
        ([[2, -1], [0, 1]], "single"),
        ([[1, 1], [0, 1]], "single"),
        ([0.0, 1.0], "single"),
        ([0, 1], "multi"),
        ([[1j, 0], [0, 1]], "multi"),
        ([True, False], "single"),
        (np.ma.masked_array([0, 1], [True, False]), "single"),
        ([[math.inf, 0], [0, 1]], "multi"),
        ([0, 1], "several"),
        ([1, 0, 0, 1], "multi"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(labels, task):
    with pytest.raises(GenaugError):
        LabeledImages([GOOD, GOOD], labels, ["cat", "dog"], ["a", "b"], task)


def test_rows_the_wrong_way_round_are_not_turned_into_others():
    with pytest.raises(GenaugError, match="shape"):
        LabeledImages([GOOD] * 3, [[1, 0, 0], [0, 1, 1]], ["cat", "dog"], ["a", "b", "c"], "multi")


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1],
        np.array([0, 1], np.uint8),
        torch.tensor([0, 1]),
        [[1, 0], [0, 1]],
        np.eye(2, dtype=bool),
        torch.eye(2),
        [[1.0, 0.0], [0.0, 1.0]],
    ],
)
def test_labels_of_every_declared_form_mean_the_same(labels):
    assert LabeledImages([GOOD, GOOD], labels, ["cat", "dog"], ["a", "b"]).targets.tolist() == [0, 1]


# ---- names


@pytest.mark.parametrize(
    "ids",
    [
        [None, "b"],
        [3.5, "b"],
        [math.nan, "b"],
        [b"a", "b"],
        ["a", "a"],
        ["é", "e\u0301"],
        ["a\ud800", "b"],
        "ab",
        [True, "b"],
        [["a"], "b"],
        None,
        2,
        [("a",), "b"],
    ],
)
def test_ids_that_are_no_distinct_texts_are_refused(ids):
    with pytest.raises(GenaugError):
        LabeledImages([GOOD, GOOD], [0, 0], ["cat"], ids)


@pytest.mark.parametrize(
    "names",
    [
        [0, 1],
        [None, "dog"],
        "ab",
        ["cat", "cat"],
        ["é", "e\u0301"],
        ["a\udcff", "dog"],
        [b"cat", "dog"],
        None,
        [math.nan, "dog"],
        [True, False],
    ],
)
def test_class_names_that_are_no_distinct_texts_are_refused(names):
    with pytest.raises(GenaugError):
        LabeledImages([GOOD, GOOD], [0, 1], names, ["a", "b"])


@pytest.mark.parametrize("name", ["../../x", "a\0b", "", "/etc/passwd", "..", "a\nb", "\u202e", "CON"])
def test_a_name_that_no_file_may_have_stays_inside_the_folder(name, tmp_path):
    images = LabeledImages([GOOD], [0], [name or "x"], [name])
    images.save(tmp_path / "home" / "set")
    again = LabeledImages.open(tmp_path / "home" / "set")
    assert again.ids == images.ids
    assert np.array_equal(again.image(0), GOOD)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["set"]


# ---- the other fields


@pytest.mark.parametrize(
    "fields",
    [
        {"origins": ["real"]},
        {"origins": "real"},
        {"origins": [1.5, "real"]},
        {"groups": ["p"]},
        {"groups": [math.nan, "p"]},
        {"groups": [["p"], "q"]},
        {"groups": "pq"},
        {"groups": {"a": "p", "b": "q"}},
        {"info": [{}]},
        {"info": ["text", {}]},
        {"info": {"a": 1, "b": 2}},
        {"info": [{"score": np.float32(1)}, {}]},
        {"info": [{"when": object()}, {}]},
        {"info": [{1: {2, 3}}, {}]},
        {"info": [{"path": GOOD}, {}]},
        {"info": "ab"},
        {"digests": ["a"]},
        {"digests": [b"a", b"b"]},
        {"groups": 2},
        {"info": 2},
    ],
)
def test_other_fields_of_the_wrong_length_or_kind_are_refused_when_the_set_is_made(fields):
    with pytest.raises(GenaugError):
        LabeledImages([GOOD, GOOD], [0, 0], ["cat"], ["a", "b"], **fields)


def test_info_that_refers_to_itself_is_refused():
    info = {}
    info["again"] = info
    with pytest.raises(GenaugError):
        single(GOOD, info=[info])


def test_whatever_a_set_accepts_can_be_saved(tmp_path):
    images = LabeledImages(
        [GOOD, GOOD],
        [0, 0],
        ["cat"],
        [np.str_("a"), 7],
        groups=[np.int64(3), None],
        info=[{"x": [1, None, "é"]}, {}],
    )
    images.save(tmp_path / "set")
    assert LabeledImages.open(tmp_path / "set").groups == [3, None]
    assert LabeledImages.open(tmp_path / "set").ids == ("a", "7")


def test_parts_and_unions_of_a_set_are_checked_no_less():
    images = LabeledImages([GOOD, GOOD], [0, 0], ["cat"], ["a", "b"], groups=["p", "q"], info=[{"n": 1}, {}])
    with pytest.raises(GenaugError, match="distinct"):
        images[[0, 0]]
    with pytest.raises(GenaugError, match="distinct"):
        images + images
    with pytest.raises(GenaugError):
        replace(images, pixels=[GOOD / 255, GOOD])
    assert images[[1]].groups == ["q"]


# ---- budgets


@pytest.mark.parametrize(
    "fields",
    [
        {"copies": math.nan},
        {"copies": -1},
        {"copies": "3"},
        {"copies": math.inf},
        {"copies": 1e12},
        {"copies": 0},
        {"copies": None},
        {"copies": True},
        {"copies": [1]},
        {"total": 0},
        {"total": -5},
        {"total": 2.5},
        {"total": "9"},
        {"total": True},
        {"total": math.nan},
        {"total": math.inf},
        {"total": 10**12},
        {"tail": 0},
        {"tail": math.nan},
        {"tail": 1.5},
        {"heads": 0, "tail": 1},
        {"heads": -1, "tail": 1},
        {"heads": 1.5, "tail": 1},
        {"fill": 1},
        {"fill": "yes"},
        {"even": None},
        {"per_class": ["cat"]},
        {"per_class": {"cat": -1}},
        {"per_class": {"cat": math.nan}},
        {"per_class": {"cat": 2.5}},
        {"per_class": {"cat": "3"}},
        {"per_class": {"cat": True}},
        {"per_class": {"cat": 10**15}},
        {"per_class": {0: 3}},
        {"per_class": {"cat": None}},
        {"copies": np.float64("nan")},
        {"copies": -1, "fill": True},
        {"copies": 10**400},
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused_when_it_is_made(fields):
    with pytest.raises(GenaugError):
        Budget(**fields)


def test_a_budget_of_more_images_than_a_plan_can_hold_is_refused_at_once():
    images = LabeledImages([GOOD] * 200, [0] * 200, ["cat"], [str(number) for number in range(200)])
    with pytest.raises(GenaugError, match="lower"):
        Budget(copies=1e6).slots(images)


def test_an_unknown_class_is_named():
    with pytest.raises(GenaugError, match="zebra"):
        Budget(per_class={"zebra": 1}).slots(single(GOOD))


def test_the_settings_of_a_budget_are_what_they_were():
    assert settings_of(Budget()) == {"copies": 5, "per_class": None, "fill": False}
    assert settings_of(Budget(2, total=9)) == {"copies": 2, "per_class": None, "fill": False, "total": 9}
    assert settings_of(Budget(per_class={"cat": 3.0})) == {
        "copies": 5,
        "per_class": {"cat": 3.0},
        "fill": False,
    }
    assert json.dumps(settings_of(Budget(0.5)))


SIZES = (7, 3, 1, 4)


def unequal(task):
    names, targets = [f"c{index}" for index in range(4)], np.repeat(np.arange(4), SIZES)
    labels = targets if task == "single" else np.eye(4)[targets] + 0.5 * np.eye(4)[(targets + 1) % 4]
    return LabeledImages(
        [GOOD] * len(targets), labels, names, [str(number) for number in range(len(targets))], task
    )


@pytest.mark.parametrize("task", ["single", "multi"])
@pytest.mark.parametrize(
    "fields",
    [
        {"copies": 1},
        {"copies": 2.5},
        {"copies": 0.4},
        {"copies": 13},
        {"fill": True},
        {"total": 3},
        {"total": 50},
        {"copies": 3.7, "even": True},
        {"tail": 5},
        {"tail": 8, "heads": 1},
        {"per_class": {"c0": 20, "c2": 3}},
    ],
    ids=str,
)
def test_photographs_of_a_class_get_as_many_copies_but_for_one(fields, task):
    images = unequal(task)
    slots = Budget(**fields).slots(images)
    for index in {slot.class_index for slot in slots}:
        able = range(len(images)) if index is None else np.flatnonzero(images.labels[:, index] > 0)
        used = [
            sum(slot.anchor == images.ids[position] and slot.class_index == index for slot in slots)
            for position in able
        ]
        assert max(used) - min(used) <= 1
        assert sorted(
            slot.copy for slot in slots if slot.class_index == index and slot.anchor == images.ids[able[0]]
        ) == list(range(used[0]))


def test_head_and_tail_need_two_classes():
    with pytest.raises(GenaugError):
        head_and_tail(np.array([3]))
    with pytest.raises(GenaugError):
        head_and_tail(np.array([3, 2]), 2)
