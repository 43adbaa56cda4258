"""Several hundred damaged, odd and hostile picture files: each is decoded or named, none stops the program,
none takes the machine."""

import functools
import io
import os
import struct
import zlib

import numpy as np
import pytest
from fuzz_world import call_checked, examples, expect, run_checked, small_world
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genaug.data.folders import check_folder
from genaug.data.pictures import inspect_file
from genaug.decoding import decode_image

SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "GIF": ".gif",
    "BMP": ".bmp",
    "DIB": ".dib",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "PPM": ".ppm",
    "JPEG2000": ".jp2",
    "AVIF": ".avif",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with small_world(tmp_path_factory.mktemp("fuzz_pictures")) as made:
        yield made


# --- files that are right, in every format and mode
# ------------------------------------------------------------------------


def noise(mode, width=17, height=13, seed=0):
    draw = np.random.default_rng(seed)
    if mode == "1":
        return Image.fromarray((draw.random((height, width)) > 0.5).astype(np.uint8) * 255).convert("1")
    if mode.startswith("I;16"):
        return Image.fromarray(draw.integers(0, 65536, (height, width)).astype(np.uint16))
    if mode == "I":
        return Image.fromarray(draw.integers(0, 65536, (height, width)).astype(np.int32))
    if mode == "F":
        return Image.fromarray(draw.random((height, width)).astype(np.float32))
    picture = Image.fromarray(draw.integers(0, 256, (height, width, 3)).astype(np.uint8))
    if mode in ("LA", "PA", "La"):
        return picture.convert("RGBA").convert("LA") if mode != "PA" else picture.convert("P").convert("PA")
    return picture.convert("RGBA").convert("RGBa") if mode == "RGBa" else picture.convert(mode)


def saved(picture, format, **more):
    "The bytes of a file, or None where the format does not take the mode."
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format=format, **({"speed": 10} if format == "AVIF" else {}), **more)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, SystemError):
        return None
    return buffer.getvalue()


def written():
    Image.init()
    modes = (
        "1",
        "L",
        "LA",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "RGBa",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I",
        "I;16",
        "F",
    )
    for format in sorted(set(Image.SAVE) - {"PDF", "EPS", "PALM", "MPO"}):
        for mode in modes if format not in ("ICNS", "AVIF") else ("RGBA",):
            data = saved(noise(mode), format)
            if data:
                yield f"ok-{format}-{mode.replace(';', '')}{SUFFIXES.get(format, '.png')}", data
    frames = [noise("RGB", seed=seed) for seed in range(3)]
    for format in ("PNG", "GIF", "WEBP", "TIFF", "AVIF", "PDF"):
        yield (
            f"frames-{format}{SUFFIXES.get(format, '.png')}",
            saved(frames[0], format, save_all=True, append_images=frames[1:]),
        )
    for number, more in enumerate(
        (
            {"progressive": True},
            {"optimize": True},
            {"quality": 1},
            {"quality": 100, "subsampling": 0},
            {"restart_marker_blocks": 1},
            {"comment": b"x" * 60_000},
            {"icc_profile": b"garbage" * 99},
            {"icc_profile": b""},
            {"dpi": (0, 0)},
        )
    ):
        yield f"jpeg-{number}.jpg", saved(noise("RGB", 64, 48), "JPEG", **more)
    for number, compression in enumerate(
        (
            "tiff_lzw",
            "tiff_deflate",
            "packbits",
            "group3",
            "group4",
            "jpeg",
            "tiff_adobe_deflate",
            "lzma",
            "zstd",
        )
    ):
        for mode in (
            ("1",)
            if compression.startswith("group")
            else ("RGB",)
            if compression == "jpeg"
            else ("1", "RGB", "L")
        ):
            yield f"tiff-{number}-{mode}.tif", saved(noise(mode, 40, 40), "TIFF", compression=compression)


def oriented():
    for value in (*range(10), 255, 65535):
        exif = Image.Exif()
        exif[0x0112] = value
        for format in ("JPEG", "PNG", "WEBP", "TIFF"):
            yield f"exif-{value}{SUFFIXES[format]}", saved(noise("RGB"), format, exif=exif)
    for number, exif in enumerate(
        (
            b"",
            b"Exif\0\0",
            b"Exif\0\0II*\0",
            b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 50,
            b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x09ABCDEFGHI",
            b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"Exif\0\0II*\0\x08\0\0\0\x00\0\x08\0\0\0",
            b"\xff" * 200,
            b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x0c\0\x01\0\0\0\x1a\0\0\0\0\0\0\0\0\0\0\0\0\xff"
            + b"\xff" * 8,
        )
    ):
        for format in ("JPEG", "PNG", "WEBP"):
            yield f"exif-garbage-{number}{SUFFIXES[format]}", saved(noise("RGB"), format, exif=exif)


# --- PNG chunk by chunk
# ---------------------------------------------------------------------------


def chunk(name, data, crc=None):
    return (
        struct.pack(">I", len(data))
        + name
        + data
        + struct.pack(">I", zlib.crc32(name + data) & 0xFFFFFFFF if crc is None else crc)
    )


def png(
    width=16,
    height=16,
    depth=8,
    colour=2,
    before=b"",
    after=b"",
    pixels=None,
    end=chunk(b"IEND", b""),
    interlace=0,
):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    if pixels is None:
        size = 1 + (width * channels * depth + 7) // 8
        row = (b"\0" + bytes(range(256)) * 4)[:size] if width < 300 else b"\0" * size
        packer = zlib.compressobj()
        pixels = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
        + before
        + chunk(b"IDAT", pixels)
        + after
        + end
    )


@functools.cache
def bomb(megabytes=64):
    return zlib.compress(b"\0" * (megabytes * 2**20), 9)


def png_files():
    little = zlib.compress(b"\0" * 100)
    for depth in (0, 1, 2, 3, 4, 8, 16, 32, 255):
        for colour in (0, 1, 2, 3, 4, 6, 7, 255):
            palette = chunk(b"PLTE", bytes(range(48))) if colour == 3 else b""
            yield f"png-{depth}-{colour}.png", png(depth=depth, colour=colour, before=palette)
    for number, (width, height) in enumerate(
        (
            (0, 0),
            (0, 16),
            (16, 0),
            (1, 1),
            (1, 100_000),
            (100_000, 1),
            (2**31 - 1, 2**31 - 1),
            (2**31, 1),
            (2**32 - 1, 2**32 - 1),
            (65_535, 65_535),
            (8_000, 8_000),
            (7_071, 7_071),
            (30_000, 6_000),
            (9_999, 5_001),
        )
    ):
        yield (
            f"png-size-{number}.png",
            png(width, height, pixels=little if max(width, height) != 100_000 else None),
        )
    for name, data in (
        ("icc", b"iCCP" + b"x\0\0" + bomb()),
        ("ztxt", b"zTXt" + b"x\0\0" + bomb()),
        ("itxt", b"iTXt" + b"x\0\1\0\0\0" + bomb()),
        ("icc-garbage", b"iCCP" + b"x\0\0" + b"garbage"),
        ("icc-empty", b"iCCP"),
        ("icc-method", b"iCCPx\0\7"),
        ("text", b"tEXt" + b"x\0" + b"y" * 2_000_000),
        ("text-no-nul", b"tEXtabc"),
        ("itxt-short", b"iTXtx"),
        ("ztxt-short", b"zTXtx\0"),
        ("exif", b"eXIf" + b"II*\0\xff\xff\xff\xff"),
        ("exif-empty", b"eXIf"),
        ("gamma", b"gAMA\0\0\0\0"),
        ("chrm", b"cHRM123"),
        ("phys", b"pHYs" + b"\xff" * 9),
        ("phys-short", b"pHYs"),
        ("trns", b"tRNS" + b"\0" * 6),
        ("trns-short", b"tRNS\0"),
        ("srgb", b"sRGB"),
        ("time", b"tIME" + b"\xff" * 7),
        ("plte-odd", b"PLTE1234"),
        ("plte-long", b"PLTE" + b"x" * 3_000),
        ("unknown-critical", b"XXXXdata"),
        ("odd-name", b"\0\0\0\0data"),
        ("actl", b"acTL" + struct.pack(">II", 2**31, 0)),
        ("actl-zero", b"acTL" + struct.pack(">II", 0, 0)),
        ("actl-short", b"acTL\0"),
        ("fctl", b"fcTL" + b"\xff" * 26),
        ("fctl-short", b"fcTL\0"),
        ("ihdr-twice", b"IHDR" + struct.pack(">IIBBBBB", 4_000, 4_000, 16, 6, 0, 0, 0)),
        ("ihdr-short", b"IHDR\0\0"),
        ("fdat", b"fdAT\0\0\0\1" + little),
        ("idot", b"iDOT" + b"\xff" * 28),
    ):
        for index in ("before", "after"):
            yield f"png-{name}-{index}.png", png(**{index: chunk(data[:4], data[4:])})
    for number in range(6):
        yield (
            f"png-many-{number}.png",
            png(before=chunk(b"tEXt", b"k\0" + b"v" * 10**number) * (200_000 // 10**number + 1)),
        )
    yield (
        "png-many-ztxt.png",
        png(before=chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 1_000_000, 9)) * 300),
    )
    good = png()
    for number, index in enumerate(range(0, len(good), max(1, len(good) // 40))):
        yield f"png-cut-{number}.png", good[:index]
        yield f"png-flip-{number}.png", good[:index] + bytes([good[index] ^ 0x40]) + good[index + 1 :]
    yield "png-crc.png", good.replace(good[29:33], b"\0\0\0\0", 1)
    yield "png-no-end.png", png(end=b"")
    yield "png-length.png", good[:33] + b"\xff\xff\xff\xff" + good[37:]
    yield "png-length-31.png", good[:33] + b"\x7f\xff\xff\xff" + good[37:]
    yield "png-bomb-pixels.png", png(16, 16, pixels=bomb())
    yield "png-interlaced.png", png(interlace=1)
    yield "png-interlace-9.png", png(interlace=9)
    yield "png-trailing.png", good + b"PK\x03\x04" + b"x" * 5_000
    yield "png-trailing-html.png", good + b"<script>alert(1)</script>"
    yield "png-no-idat.png", good[:33] + chunk(b"IEND", b"")
    yield "png-idat-empty.png", png(pixels=b"")
    yield "png-idat-garbage.png", png(pixels=b"garbage")
    yield (
        "apng-loop.png",
        png(
            before=chunk(b"acTL", struct.pack(">II", 1_000_000, 0))
            + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 0, 0, 0, 0))
        ),
    )


# --- the other formats
# ---------------------------------------------------------------------------


def tiff(entries, after=b"", next_ifd=0, mark=b"II*\0", start=8, pixels=b"\x80" * 256):
    body = (
        struct.pack("<H", len(entries))
        + b"".join(
            struct.pack("<HHI", *entry[:3])
            + (entry[3] if isinstance(entry[3], bytes) else struct.pack("<I", entry[3] & 0xFFFFFFFF))
            for entry in entries
        )
        + struct.pack("<I", next_ifd)
    )
    return mark + struct.pack("<I", start) + body + after + pixels


def tiff_files():
    base = {
        256: (256, 3, 1, 16),
        257: (257, 3, 1, 16),
        258: (258, 3, 1, 8),
        259: (259, 3, 1, 1),
        262: (262, 3, 1, 1),
        273: (273, 4, 1, 130),
        277: (277, 3, 1, 1),
        278: (278, 3, 1, 16),
        279: (279, 4, 1, 256),
    }

    def plain(**more):
        return tiff([*{**base, **{int(key[1:]): value for key, value in more.items()}}.values()])

    changes = {
        "plain": {},
        "loop": None,
        "width-0": {"t256": (256, 4, 1, 0)},
        "width-huge": {"t256": (256, 4, 1, 2**31)},
        "both-huge": {"t256": (256, 4, 1, 2**31), "t257": (257, 4, 1, 2**31)},
        "negative": {"t257": (257, 9, 1, -16)},
        "bits-0": {"t258": (258, 3, 1, 0)},
        "bits-64": {"t258": (258, 3, 1, 64)},
        "bits-12": {"t258": (258, 3, 1, 12)},
        "compression-99": {"t259": (259, 3, 1, 99)},
        "compression-jpeg": {"t259": (259, 3, 1, 6)},
        "compression-lzw": {"t259": (259, 3, 1, 5)},
        "compression-webp": {"t259": (259, 3, 1, 50001)},
        "photometric-99": {"t262": (262, 3, 1, 99)},
        "photometric-lab": {"t262": (262, 3, 1, 8)},
        "offset-out": {"t273": (273, 4, 1, 10**9)},
        "offset-many": {"t273": (273, 4, 10**6, 130)},
        "samples-99": {"t277": (277, 3, 1, 99)},
        "rows-0": {"t278": (278, 3, 1, 0)},
        "bytes-huge": {"t279": (279, 4, 1, 2**32 - 1)},
        "type-0": {"t256": (256, 0, 1, 16)},
        "type-99": {"t256": (256, 99, 1, 16)},
        "count-huge": {"t256": (256, 3, 2**31, 16)},
        "ratio": {"t282": (282, 5, 1, 4)},
        "tiles": {"t322": (322, 3, 1, 0), "t323": (323, 3, 1, 0), "t324": (324, 4, 1, 130)},
        "float": {"t339": (339, 3, 1, 3), "t258": (258, 3, 1, 32)},
        "planar": {"t284": (284, 3, 1, 2)},
        "exif-loop": {"t34665": (34665, 4, 1, 8)},
        "orientation": {"t274": (274, 2, 4, b"abc\0")},
        "string": {"t270": (270, 2, 10**6, 8)},
    }
    for name, change in changes.items():
        yield f"tiff-{name}.tif", tiff([*base.values()], next_ifd=8) if change is None else plain(**change)
    yield "tiff-big.tif", b"II+\0\x08\0\0\0" + b"\xff" * 40
    yield "tiff-start-out.tif", tiff([*base.values()], start=2**31)
    yield "tiff-start-self.tif", tiff([*base.values()], start=0)
    yield "tiff-mm.tif", tiff([*base.values()], mark=b"MM\0*")


def bmp(
    width, height, bits=24, planes=1, compression=0, header=40, offset=54, colours=0, pixels=b"\x40" * 3_000
):
    return (
        b"BM"
        + struct.pack("<IHHI", 54 + len(pixels), 0, 0, offset)
        + struct.pack("<IiiHHIIiiII", header, width, height, planes, bits, compression, 0, 0, 0, colours, 0)
        + pixels
    )


def other_files():
    for number, arguments in enumerate(
        (
            (16, 16),
            (16, -16),
            (-16, 16),
            (0, 0),
            (2**31 - 1, 2**31 - 1),
            (16, -(2**31)),
            (16, 16, 1),
            (16, 16, 4),
            (16, 16, 8),
            (16, 16, 16),
            (16, 16, 32),
            (16, 16, 64),
            (16, 16, 0),
            (16, 16, 8, 1, 1),
            (16, 16, 24, 1, 3),
            (16, 16, 24, 0),
            (16, 16, 24, 1, 0, 12),
            (16, 16, 24, 1, 0, 2**31),
            (16, 16, 24, 1, 0, 40, 2**31),
            (16, 16, 8, 1, 0, 40, 54, 2**31),
            (1, 100_000),
            (16, 16, 8, 1, 2),
            (16, 16, 4, 1, 2),
            (16, 16, 32, 1, 6),
        )
    ):
        yield f"bmp-{number}.bmp", bmp(*arguments)
    gif = saved(noise("P"), "GIF")
    for number, index in enumerate(range(0, len(gif), max(1, len(gif) // 25))):
        yield f"gif-cut-{number}.gif", gif[:index]
        yield f"gif-flip-{number}.gif", gif[:index] + bytes([gif[index] ^ 0xFF]) + gif[index + 1 :]
    yield "gif-huge.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:]
    yield "gif-zero.gif", gif[:6] + b"\0\0\0\0" + gif[10:]
    for format, mode in (
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("JPEG", "L"),
        ("WEBP", "RGBA"),
        ("TIFF", "RGB"),
        ("BMP", "P"),
        ("JPEG2000", "RGB"),
        ("AVIF", "RGB"),
        ("ICO", "RGBA"),
        ("PPM", "RGB"),
        ("TGA", "RGB"),
        ("PCX", "RGB"),
        ("ICNS", "RGBA"),
        ("SGI", "RGB"),
        ("DDS", "RGBA"),
    ):
        data = (
            saved(noise(mode, 64, 64), format, **({"progressive": True} if mode == "L" else {}))
            if format in Image.SAVE
            else None
        )
        if data is None:
            continue
        for number in range(6):
            index = (number * len(data)) // 6 + 3
            yield f"cut-{format}-{mode}-{number}{SUFFIXES.get(format, '.png')}", data[:index]
            draw, changed = np.random.default_rng(number), bytearray(data)
            for spot in draw.integers(0, len(data), 1 + 4 * number):
                changed[int(spot)] = int(draw.integers(256))
            yield f"flip-{format}-{mode}-{number}{SUFFIXES.get(format, '.png')}", bytes(changed)
        yield f"twice-{format}-{mode}{SUFFIXES.get(format, '.png')}", data + data
    jpeg = saved(noise("RGB", 64, 64), "JPEG")
    size = jpeg.index(b"\xff\xc0") + 5
    for number, shape in enumerate((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\1\xff\xff", b"\xff\xff\0\1")):
        yield f"jpeg-size-{number}.jpg", jpeg[:size] + shape + jpeg[size + 4 :]
    yield "jpeg-arithmetic.jpg", jpeg.replace(b"\xff\xc0", b"\xff\xc9")
    yield "jpeg-lossless.jpg", jpeg.replace(b"\xff\xc0", b"\xff\xc3")
    yield "jpeg-precision-12.jpg", jpeg[: size - 1] + b"\x0c" + jpeg[size:]
    yield "jpeg-no-end.jpg", jpeg[:-2]
    yield "jpeg-markers.jpg", jpeg[:2] + b"\xff\xe1\0\2" * 50_000 + jpeg[2:]
    yield "jpeg-mpo.jpg", jpeg[:2] + b"\xff\xe2\0\x10MPF\0II*\0\xff\xff\xff\xff" + jpeg[2:]
    yield "jpeg-icc-part.jpg", jpeg[:2] + b"\xff\xe2\0\x14ICC_PROFILE\0\1\2abc" + jpeg[2:]
    yield (
        "jpeg-photoshop.jpg",
        jpeg[:2] + b"\xff\xed\0\x1cPhotoshop 3.0\0" + b"8BIM\x03\xed\0\0\xff\xff" + jpeg[2:],
    )
    yield (
        "jpeg-xmp.jpg",
        jpeg[:2]
        + b'\xff\xe1\0\x60http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><!DOCTYPE a [<!ENTITY b "c">]>&b;'.ljust(
            0x62, b" "
        )
        + jpeg[2:],
    )
    for number, head in enumerate(
        (
            b"P6\n16 16\n255\n",
            b"P6\n-16 16\n255\n",
            b"P6\n16 16\n65536\n",
            b"P6\n99999999 99999999\n255\n",
            b"P5\n16 16\n0\n",
            b"P1\n16 16\n",
            b"P3\n16 16\n255\n1 2 3",
            b"P7\nWIDTH 16\nENDHDR\n",
            b"Pf\n16 16\n-1.0\n",
            b"PF\n16 16\nnan\n",
            b"P6\n" + b"#" * 100_000 + b"\n16 16\n255\n",
            b"P6\n1" + b"0" * 5_000 + b" 1\n255\n",
        )
    ):
        yield f"ppm-{number}.ppm", head + b"\x80" * 900


def foreign_files():
    plain = {
        "empty": b"",
        "byte": b"\0",
        "zeros": b"\0" * 5_000,
        "ones": b"\xff" * 5_000,
        "text": b"just text",
        "utf16": "just text".encode("utf-16"),
        "html": b"<html><script>alert(1)</script></html>",
        "svg": b'<?xml version="1.0"?><svg '
        b'xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "xml-bomb": b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><svg>&b;</svg>',
        "pdf": b"%PDF-1.4\n1 0 obj<<>>endobj",
        "elf": b"\x7fELF\x02\x01\x01" + b"\0" * 100,
        "exe": b"MZ" + b"\0" * 200,
        "zip": b"PK\x03\x04" + b"\0" * 100,
        "gzip": b"\x1f\x8b\x08" + b"\0" * 50,
        "tar": b"x".ljust(257, b"\0") + b"ustar",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage",
        "eps-shell": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch hacked) (w) file",
        "wmf": b"\xd7\xcd\xc6\x9a\0\0" + b"\0" * 40,
        "psd": b"8BPS\0\1" + b"\0" * 6 + b"\0\3\0\0\0\x10\0\0\0\x10\0\x08\0\3" + b"\0" * 60,
        "psd-huge": b"8BPS\0\1"
        + b"\0" * 6
        + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\x08\0\3"
        + b"\xff" * 60,
        "icns": b"icns\0\0\0\x10ic10\0\0\0\x08",
        "icns-loop": b"icns\0\0\x10\0ic07\0\0\0\0" + b"\0" * 50,
        "ico": b"\0\0\1\0\xff\xff" + b"\x10\x10\0\0\1\0\x20\0\xff\xff\xff\xff\x16\0\0\0",
        "ico-zero": b"\0\0\1\0\0\0",
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "avif": b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + b"\0" * 60,
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\xff" * 40,
        "j2k": b"\xff\x4f\xff\x51\0\x2f" + b"\xff" * 60,
        "webp": b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\xff" * 30,
        "webp-x": b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\xff\0\0\0\xff\xff\xff\xff\xff\xff",
        "fits": b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2_800),
        "flif": b"FLIF" + b"\x44" * 30,
        "dcm": b"\0" * 128 + b"DICM" + b"\0" * 100,
        "npy": b"\x93NUMPY\1\0" + b"x" * 100,
        "pickle": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
        "gbr": b"\0\0\0\x1c\0\0\0\2\0\0\0\x10\0\0\0\x10\0\0\0\3GIMP" + b"\0" * 800,
        "pcx": b"\x0a\x05\x01\x08\xff\xff\xff\xff\0\0\0\0" + b"\0" * 130,
        "fli": b"\xff\xff\xff\xff\x12\xaf" + b"\xff" * 150,
        "dds": b"DDS \x7c\0\0\0" + b"\xff" * 130,
        "sgi": b"\x01\xda\x01\x01\0\x03\xff\xff\xff\xff\xff\xff" + b"\0" * 520,
        "sun": b"\x59\xa6\x6a\x95" + b"\xff" * 28,
        "tga": b"\0\0\x02" + b"\0" * 9 + b"\xff\xff\xff\xff\x18\0",
        "xbm": b"#define x_width 999999999\n#define x_height 999999999\nstatic char x_bits[] = {\n",
        "xpm": b'/* XPM */\nstatic char * x[] = {\n"16 16 99999999 1",\n',
        "ftex": b"FTEX" + b"\xff" * 40,
        "blp": b"BLP2" + b"\xff" * 200,
        "qoi": b"qoif\xff\xff\xff\xff\xff\xff\xff\xff\4\0",
        "im": b"Image type: RGB image\r\nImage size (x*y): 99999*99999\r\nFile "
        b"size (no of images): 1\r\n".ljust(511, b"\0")
        + b"\x1a",
        "msp": b"DanM" + b"\xff" * 40,
        "mpeg": b"\0\0\1\xb3\xff\xff\xff",
        "hdf": b"\x89HDF\r\n\x1a\n",
        "grib": b"GRIB\0\0\0\1",
        "bufr": b"BUFR\0\0\0\1",
        "lnk": b"L\0\0\0\x01\x14\2\0",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    }
    good = png()
    for name, data in plain.items():
        yield f"foreign-{name}.png", data
        yield f"poly-{name}.png", data + good
    names = [
        "with space.png",
        " leading.png",
        "trailing .png",
        "dots...png",
        ".png.png",
        "UPPER.PNG",
        "MiXed.JpG",
        "-dash.png",
        "--help.png",
        "new\nline.png",
        "new\nFORGED error: x.png",
        "tab\t.png",
        "esc\x1b[31m.png",
        "bell\x07.png",
        "del\x7f.png",
        "rtl\u202egnp.png",
        "zero\u200bwidth.png",
        "nbsp\u00a0.png",
        "bom\ufeff.png",
        "accent-e\u0301.png",
        "accent-\u00e9.png",
        "ａ.png",
        "漢字.png",
        "😀.png",
        "quote'.png",
        'double".png',
        "back\\slash.png",
        "colon:.png",
        "star*.png",
        "what?.png",
        "<hostile>.png",
        "a|b.png",
        "percent%41.png",
        "%s%n.png",
        "{0}.png",
        "$HOME.png",
        "`id`.png",
        "semi;colon.png",
        "amp&.png",
        "=1+1.png",
        "@x.png",
        "+x.png",
        "CON.png",
        "nul.png",
        "com1.png",
        "x" * 251 + ".png",
        "é" * 125 + ".png",
        "~.png",
        "#.png",
        "\u2028.png",
        "\ud7ff.png",
        "\U000e0001.png",
        "\U0010ffff.png",
        "ﷺ.png",
    ]
    for name in names:
        yield name, good


@functools.cache
def hostile_pictures():
    "(name, bytes) of every file; equal names keep the first."
    actual = {}
    for source in (written, oriented, png_files, tiff_files, other_files, foreign_files):
        for name, data in source():
            if data is not None:
                actual.setdefault(name, data)
    return tuple(actual.items())


pytestmark = pytest.mark.filterwarnings("ignore")


def judge(path):
    "Decode one file in both ways; they must agree on whether it can be used."
    seen, read = (
        call_checked(inspect_file, path, megabytes=400, seconds=5),
        call_checked(decode_image, path, megabytes=400, seconds=5),
    )
    usable = seen.value is not None and seen.value[0] is not None
    if usable:
        expect(read.value is not None, f"{path.name}: called usable, but cannot be decoded")
    if read.value is not None:
        expect(
            read.value.dtype == np.uint8 and read.value.ndim == 3 and read.value.shape[2] in (1, 3),
            f"{path.name} is no array of the declared form",
        )
    return usable


def spread(folder, files):
    "A data set of them: two classes in turn, one good picture each so that a class exists."
    for index, (name, data) in enumerate(files):
        home = folder / ("one", "two")[index % 2]
        home.mkdir(exist_ok=True)
        with open(os.path.join(os.fsencode(home), os.fsencode(name)), "wb") as file:
            file.write(data)
    return folder


# --- the claims
# ---------------------------------------------------------------------------


def test_there_are_several_hundred_hostile_pictures_of_all_kinds():
    assert len(hostile_pictures()) >= 400


@pytest.mark.parametrize("part", range(4))
def test_every_fourth_hostile_picture_is_decoded_or_named_within_its_bounds(world, part):
    home = world.fresh()
    for name, data in hostile_pictures()[part * 5 :: 20]:
        path = home / name
        path.write_bytes(data)
        judge(path)


def test_a_folder_of_hostile_pictures_is_checked_in_one_go(world):
    home = spread(world.fresh(), hostile_pictures()[::12] + hostile_pictures()[-30:])
    outcome = run_checked(world, ["check", home, "--quiet"])
    assert outcome.code == 2
    assert "errors" in outcome.out


def test_a_folder_of_hostile_pictures_is_not_painted_from(world):
    home = spread(world.fresh(), hostile_pictures()[::40])
    assert (
        run_checked(
            world, ["augment", home, "out", "--method", "smote", "--copies", "1", "--quiet"], out="out"
        ).code
        == 2
    )


@examples(15)
@given(st.data())
def test_damaged_bytes_are_decoded_or_named(world, data):
    damaged(world, data)


def damaged(world, data):
    names = [
        entry
        for entry in hostile_pictures()
        if entry[0].startswith(("ok-", "exif-", "jpeg-", "tiff-", "frames-")) and len(entry[1]) < 20_000
    ]
    name, content = data.draw(st.sampled_from(names))
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        index, value = data.draw(st.integers(0, max(0, len(changed) - 1))), data.draw(st.integers(0, 255))
        action = data.draw(st.sampled_from(["set", "cut", "insert", "remove", "zero", "word"]))
        if action == "set" and changed:
            changed[index] = value
        elif action == "cut":
            del changed[index:]
        elif action == "insert":
            changed[index:index] = bytes([value]) * data.draw(st.integers(1, 50))
        elif action == "remove":
            del changed[index : index + value]
        else:
            changed[index : index + 4] = b"\0\0\0\0" if action == "zero" else b"\xff\xff\xff\x7f"
    path = world.fresh() / name
    path.write_bytes(bytes(changed))
    judge(path)


@pytest.mark.long
def test_every_hostile_picture_is_decoded_or_named_within_its_bounds(world):
    home = world.fresh()
    for name, data in hostile_pictures():
        path = home / name
        path.write_bytes(data)
        judge(path)
        path.unlink()


@pytest.mark.long
def test_all_hostile_pictures_are_checked_in_one_go_and_refused_by_every_command(world):
    home = spread(world.fresh(), hostile_pictures())
    assert run_checked(world, ["check", home, "--quiet"], seconds=120, megabytes=1200).code == 2
    for command in (
        ["augment", home, "out", "--method", "smote"],
        ["compare", home, "--methods", "original,smote", "--out", "out"],
        ["suffixes", home, "out.txt"],
    ):
        assert run_checked(world, [*command, "--quiet"], out="out", seconds=120, megabytes=1200).code == 2


@pytest.mark.long
def test_what_is_usable_among_hostile_pictures_can_be_painted_from(world):
    home = world.fresh()
    report = check_folder(spread(home, hostile_pictures()))
    remaining = {image.path for image in report.images}
    for path in [path for folder in home.iterdir() for path in folder.iterdir() if path not in remaining]:
        path.unlink()
    outcome = run_checked(
        world,
        ["augment", home, "painted", "--method", "smote", "--copies", "1", "--shots", "20", "--quiet"],
        out="painted",
        seconds=120,
        megabytes=2000,
    )
    assert outcome.code in (0, 2)


@pytest.mark.long
@examples(1000)
@given(st.data())
def test_many_damaged_bytes_are_decoded_or_named(world, data):
    damaged(world, data)


@pytest.mark.long
@pytest.mark.parametrize("mode", ("RGBA", "RGB", "L", "P", "1", "I;16", "CMYK"))
def test_the_largest_allowed_picture_takes_a_bounded_amount_of_memory(world, mode):
    path = world.fresh() / ("large.tif" if mode == "CMYK" else "large.png")
    kind = {"RGBA": (8, 6), "RGB": (8, 2), "L": (8, 0), "P": (8, 3), "1": (1, 0), "I;16": (16, 0)}.get(mode)
    if kind is None:
        Image.new("CMYK", (7_000, 7_000)).save(path, compression="tiff_deflate")
    else:
        path.write_bytes(
            png(7_000, 7_000, *kind, before=chunk(b"PLTE", bytes(range(48))) if mode == "P" else b"")
        )
    call_checked(
        inspect_file, path, megabytes=1500, seconds=60
    )  # transparency: the picture, white, both together, and the array
