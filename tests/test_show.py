"""genaug.show: nothing in a file name or class name can do harm, and pictures arrive as they are."""

import base64
import html.parser
import io

import numpy as np
import pytest
import torch
from PIL import Image

from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.show import (
    escape,
    figure_svg,
    html_strip,
    mean_interval,
    show_beside,
    show_curves,
    show_images,
    to_arrays,
    to_data_uri,
)

HOSTILE = (
    '<script>alert("1")</script>',
    "' onerror='x",
    '" onload="x',
    "</figcaption><img src=x onerror=y>",
    "$\\frac{",
    "5$_",
    "a\x00b\x1b[2J",
    "\u202eevil",
    "&lt;",
    "名前",
    "",
)


class Reader(html.parser.HTMLParser):
    "Collects the tags, attributes and text that a browser would see."

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]

    def handle_data(self, data):
        self.text += data


def decode(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


@pytest.fixture
def tile():
    return np.random.default_rng(0).integers(0, 255, (8, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_markup(text, tile):
    page = Reader(html_strip([tile], [text], [text]))
    assert page.tags == ["div", "figure", "img", "figcaption"]
    assert set(page.attributes) == {
        "class",
        "src",
        "alt",
        "title",
    }
    assert not any(ord(character) < 32 for character in page.text)
    assert "\u202e" not in page.text
    if text.isprintable():
        assert page.text == text


def test_escape_takes_anything():
    assert escape(5) == "5"
    assert escape(None) == "None"
    assert escape("a\nb") == "a\nb"
    assert escape("\ud800") == "\\ud800"


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 3)])
def test_data_uris_hold_the_pixels(shape):
    array = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    assert np.array_equal(decode(to_data_uri(array)), array.squeeze())
    assert np.array_equal(decode(to_data_uri(array, 16)), array.squeeze().repeat(2, 0).repeat(2, 1))
    assert decode(to_data_uri(array, 15)).shape[:2] == (8, 6)
    assert max(decode(to_data_uri(array.repeat(20, 0).repeat(20, 1), 64)).shape[:2]) == 64


def test_pictures_in_all_forms_and_refusals(tile):
    images = LabeledImages([tile, tile], [0, 0], ("a",), ["1", "2"])
    assert np.array_equal(to_arrays(images)[1], tile)
    assert np.array_equal(to_arrays(torch.from_numpy(tile).permute(2, 0, 1)[None] / 255)[0], tile)
    for wrong in ([tile / 255], [tile[0, 0]]):
        with pytest.raises(GenaugError, match="uint8"):
            to_arrays(wrong)
    with pytest.raises(GenaugError, match="captions"):
        html_strip([tile], ["a", "b"])
    with pytest.raises(GenaugError, match="titles"):
        show_images([tile], ["a", "b"])


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.filterwarnings("error")
def test_figures_draw_any_title(text, tile):
    images = LabeledImages([tile], [0], (text or "x",), ["1"])
    for figure in (
        show_images([tile, tile], [text, text]),
        show_beside(images, images),
        show_curves({text: ([1, 2], [3, 4]), "b": ([1], [2])}, text, text, text),
    ):
        assert figure._repr_png_()[:4] == b"\x89PNG"


def test_grids_of_any_size(tile):
    assert [len(show_images([tile] * count, columns=3).axes) for count in (0, 1, 3, 4)] == [1, 1, 3, 6]
    figure = show_images([tile, tile[:, :, :1]], ["a" * 40, "b"])
    assert figure.axes[0].get_title() == "a" * 27 + "…"
    assert figure.axes[1].images[0].get_array().shape[:2] == (8, 6)


def test_figures_are_small_and_leave_no_global_figure(tile):
    import matplotlib.pyplot as plt

    picture = show_images(
        [np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8) for seed in range(16)]
    )
    assert len(picture._repr_png_()) < 80_000
    assert picture.dpi == 80
    assert plt.get_fignums() == []


def test_beside_shows_what_there_is(tile):
    real = LabeledImages([tile] * 3, [0, 0, 1], ("a", "b"), list("123"))
    none = real[[]]

    def shown(figure):
        return sum(bool(axis.images) for axis in figure.axes)

    assert shown(show_beside(real, real, columns=2)) == 6
    assert shown(show_beside(real, none, columns=2)) == 3
    assert shown(show_beside(real, real, columns=2, classes=["b"])) == 2
    with pytest.raises(GenaugError, match="class names"):
        show_beside(real, LabeledImages([], [], ("a",), []))


def test_interval_is_students():
    from scipy import stats

    values = np.random.default_rng(0).normal(5, 2, (6, 3))
    mean, half = mean_interval(values)
    low, high = stats.t.interval(0.95, 5, values.mean(0), stats.sem(values))
    assert np.allclose(mean - half, low)
    assert np.allclose(mean + half, high)
    inside = [
        abs(mean_interval(np.random.default_rng(seed).normal(0, 1, (5, 1)))[0][0])
        <= mean_interval(np.random.default_rng(seed).normal(0, 1, (5, 1)))[1][0]
        for seed in range(400)
    ]
    assert 0.91 < np.mean(inside) < 0.985


def test_svg_is_repeatable_and_carries_no_script():
    curves = {"<script>x</script>": ([1, 2, 3], [[1, 2, 3], [2, 3, 5]]), "</svg><b>": ([1, 2], [3, 4])}
    first, second = (figure_svg(show_curves(curves, "<x>", '"y"')) for _ in range(2))
    assert first == second
    assert "<script>x" not in first
    assert first.count("</svg>") == 1
    assert "http-equiv" not in first
    page = Reader(first)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "<script>x</script>" in page.text
