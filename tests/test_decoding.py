"""What a file says about its values is followed, or said; ordinary files decode to the pixels they always
had."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from genaug.decoding import decode_image, picture_traits
from genaug.identity import content_hash
from genaug.messages import GenaugError

PIXELS = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SWAPPED = (
    SRGB.replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")
)  # still called sRGB


def grey_profile(gamma):
    "The smallest ICC profile of a grey scanner."

    def number(value):
        return struct.pack(">i", round(value * 65536))

    tags = {
        b"wtpt": b"XYZ \0\0\0\0" + number(0.9642) + number(1) + number(0.8249),
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0",
    }
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value
    head = (
        struct.pack(">I4sI4s4s4s", start + len(data), b"\0\0\0\0", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
        + b"\0" * 12
        + b"acsp"
        + b"\0" * 28
        + number(0.9642)
        + number(1)
        + number(0.8249)
    )
    return head.ljust(128, b"\0") + table + data


def png(width, height, depth, colour, raw, **chunks):
    "A PNG of any depth, with further chunks before the pixels."

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    stride = len(raw) // height
    lines = b"".join(b"\0" + raw[row * stride : (row + 1) * stride] for row in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + b"".join(chunk(name.encode(), data) for name, data in chunks.items())
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def written(tmp_path):
    "Write a picture or bytes, give the path."

    def write(content, name="picture.png", **options):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            content.save(tmp_path / name, **options)
        return tmp_path / name

    return write


# ---- profiles


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1"])
def test_an_srgb_profile_changes_no_pixel(written, mode):
    picture = Image.fromarray(PIXELS).convert(mode)
    assert np.array_equal(
        decode_image(written(picture, icc_profile=SRGB)), decode_image(written(picture, "plain.png"))
    )
    assert not {"profile", "broken-profile"} & set(picture_traits(written(picture, icc_profile=SRGB)))


def test_hashes_of_ordinary_files_are_what_they_were(written):
    assert content_hash(decode_image(written(Image.fromarray(PIXELS)))) == content_hash(PIXELS)
    assert content_hash(decode_image(written(Image.fromarray(PIXELS), icc_profile=SRGB))) == content_hash(
        PIXELS
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_exchanged_primaries_are_exchanged_back_whatever_the_profile_calls_itself(written, mode):
    picture = Image.fromarray(PIXELS).convert(mode)
    plain = decode_image(written(picture, "plain.png")).astype(int)
    seen = decode_image(written(picture, icc_profile=SWAPPED)).astype(int)
    assert np.abs(seen - plain[:, :, [1, 0, 2]]).max() <= 2
    assert "profile" in picture_traits(written(picture, icc_profile=SWAPPED))


def test_a_jpeg_with_a_wide_profile_is_what_a_viewer_shows(written):
    picture = Image.fromarray(np.full((8, 8, 3), (200, 60, 60), np.uint8))
    path = written(picture, "wide.jpg", icc_profile=SWAPPED, quality=95)
    with Image.open(path) as opened:
        shown = ImageCms.profileToProfile(opened, io.BytesIO(SWAPPED), ImageCms.createProfile("sRGB"))
    assert np.abs(decode_image(path).astype(int) - np.asarray(shown).astype(int)).max() <= 2


@pytest.mark.parametrize(("gamma", "moves"), [(1.0, True), (3.0, True)])
def test_a_grey_profile_is_followed_and_grey_stays_grey(written, gamma, moves):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    path = written(Image.fromarray(grey), icc_profile=grey_profile(gamma))
    seen = decode_image(path)
    linear = (grey / 255) ** gamma
    wanted = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert seen.shape == (8, 8, 1)
    assert np.abs(seen[:, :, 0] - wanted).max() <= 3
    assert "profile" in picture_traits(path)


def test_a_grey_profile_on_a_picture_with_transparency(written):
    picture = Image.fromarray(np.full((4, 4), 100, np.uint8)).convert("LA")
    picture.putalpha(0)
    assert decode_image(written(picture, icc_profile=grey_profile(1.0))).min() == 255


@pytest.mark.parametrize(
    "profile",
    [b"x", b"\0" * 200, SRGB[:100], SRGB[:400], grey_profile(2.0)],
    ids=["one byte", "zeros", "a head", "cut", "another kind"],
)
def test_a_profile_that_cannot_be_used_changes_nothing_and_is_named(written, profile):
    path = written(Image.fromarray(PIXELS), icc_profile=profile)
    assert np.array_equal(decode_image(path), PIXELS)
    assert "broken-profile" in picture_traits(path)


def test_print_colours_without_a_profile_are_what_they_were(written):
    path = written(Image.fromarray(PIXELS).convert("CMYK"), "print.tif")
    assert np.array_equal(decode_image(path), np.asarray(Image.open(path).convert("RGB")))
    assert picture_traits(path) == ("CMYK",)


def test_a_screen_profile_in_a_print_file_changes_nothing(written):
    path = written(Image.fromarray(PIXELS).convert("CMYK"), "print.tif", icc_profile=SRGB)
    assert np.array_equal(decode_image(path), np.asarray(Image.open(path).convert("RGB")))
    assert "broken-profile" in picture_traits(path)


def test_another_gamma_is_named(written):
    raw = bytes(range(6))
    assert "gamma" in picture_traits(written(png(2, 1, 8, 2, raw, gAMA=struct.pack(">I", 100000))))
    assert "gamma" not in picture_traits(written(png(2, 1, 8, 2, raw, gAMA=struct.pack(">I", 45455))))


# ---- transparency


@pytest.mark.parametrize(
    ("depth", "raw", "clear", "wanted"),
    [
        (8, b"\5\11", b"\0\5", [255, 9]),
        (16, struct.pack(">HH", 3000, 65535), struct.pack(">H", 3000), [255, 255]),
        (2, b"\x1b", b"\0\1", [0, 255, 170, 255]),
        (4, b"\x03", b"\0\0", [255, 51]),
        (1, b"\x80", b"\0\0", [255, 255]),
    ],
)
def test_a_grey_value_declared_transparent_is_white(written, depth, raw, clear, wanted):
    path = written(png(len(wanted), 1, depth, 0, raw, tRNS=clear))
    assert decode_image(path).ravel().tolist() == wanted
    assert "alpha" in picture_traits(path)


def test_a_colour_declared_transparent_is_white(written):
    assert decode_image(written(png(2, 1, 8, 2, bytes(range(6)), tRNS=b"\0\0\0\1\0\2"))).ravel().tolist() == [
        255,
        255,
        255,
        3,
        4,
        5,
    ]


def test_a_deep_colour_declared_transparent_is_white(written):
    raw = struct.pack(">6H", 30000, 40000, 10000, 1, 2, 3)
    assert decode_image(written(png(2, 1, 16, 2, raw, tRNS=raw[:6]))).ravel().tolist() == [
        255,
        255,
        255,
        0,
        0,
        0,
    ]


def test_a_transparent_palette_is_laid_over_white(written):
    picture = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2)).convert("P")
    picture.putpalette([10, 20, 30] * 4)
    assert decode_image(written(picture, transparency=0))[0, 0].tolist() == [255, 255, 255]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(written(picture, transparency=bytes([255, 0, 255, 255])))[0, 1].tolist() == [
            255,
            255,
            255,
        ]


def test_rotation_and_transparency_together(written):
    tags = Image.Exif()
    tags[0x0112] = 6
    picture = np.dstack([PIXELS[:4], np.where(np.arange(8) < 4, 0, 255)[None].repeat(4, 0)]).astype(np.uint8)
    seen = decode_image(written(Image.fromarray(picture), exif=tags))
    assert seen.shape == (8, 4, 3)
    assert seen[:4].min() == 255
    assert np.array_equal(seen[4:], np.rot90(PIXELS[:4], -1)[4:])


# ---- depth


@pytest.mark.parametrize(
    ("largest", "traits"),
    [(4095, {"16-bit", "12-bit"}), (16383, {"16-bit", "14-bit"}), (65535, {"16-bit"}), (200, {"16-bit"})],
)
def test_few_bits_in_a_deep_grey_file_are_named(written, largest, traits):
    assert set(picture_traits(written(Image.fromarray(np.full((4, 4), largest, np.uint16))))) == traits


def test_few_bits_in_a_deep_colour_file_are_named(written):
    assert set(picture_traits(written(png(2, 1, 16, 2, struct.pack(">6H", 4000, 3000, 200, 1, 2, 3))))) == {
        "16-bit",
        "12-bit",
    }
    assert set(picture_traits(written(png(2, 1, 16, 2, struct.pack(">6H", 40000, 3000, 200, 1, 2, 3))))) == {
        "16-bit"
    }


def test_ordinary_pictures_have_no_trait(written):
    assert picture_traits(written(Image.fromarray(PIXELS))) == ()
    assert picture_traits(written(Image.fromarray(PIXELS), "photo.jpg")) == ()


def test_floating_point_pixels_are_refused(written):
    with pytest.raises(GenaugError, match="no defined white"):
        decode_image(written(Image.fromarray(np.ones((4, 4), np.float32)), "float.tif"))


# ---- broken files


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut.gif", "cut.bmp"])
def test_a_file_that_ends_too_early_is_refused_whatever_pillow_was_told(written, name, tolerant, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    path = written(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), name
    )
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    with pytest.raises(GenaugError, match="repair, convert or remove"):
        decode_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant


def test_many_threads_do_not_make_a_file_whole(written, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = written(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    cut = written(whole.read_bytes()[:6000], "cut.png")

    def attempt(path):
        try:
            return decode_image(path) is not None
        except GenaugError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(attempt, [whole, cut] * 40)) == [True, False] * 40


def test_a_bomb_is_refused_before_it_is_unpacked_also_where_warnings_are_errors(written):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for width in (10_000, 60_000):
            with pytest.raises(GenaugError):
                decode_image(written(png(width, 10_000, 8, 0, b"")))


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_decoded_or_refused(written, seed):
    "No other error than `GenaugError`, whatever bytes were turned over."
    draw = np.random.default_rng(seed)
    suffix = ["png", "jpg", "gif", "tif", "bmp", "webp"][seed % 6]
    options = {"icc_profile": SWAPPED} if suffix in ("png", "jpg", "tif", "webp") else {}
    path = written(Image.fromarray(PIXELS), f"picture.{suffix}", **options)
    data = bytearray(path.read_bytes())
    for index in draw.integers(0, len(data), 1 + seed % 7):
        data[index] = draw.integers(256)
    path.write_bytes(bytes(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for reader in (decode_image, picture_traits):
            try:
                reader(path)
            except GenaugError as error:
                assert str(path) in str(error)
