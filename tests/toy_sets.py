"""Small pictures of noise and sets of them, drawn by one factory for the tests of many pages."""

import numpy as np

from genaug.core import LabeledImages

BIRDS = ("wren", "great tit", "owl")


def noise_pictures(shapes, *, seed=0, low=0, high=256, tints=None):
    "One picture of noise in [low, high) per shape, added to its tint; a generator as `seed` is drawn on."
    draw = np.random.default_rng(seed)
    noise = [draw.integers(low, high, shape) for shape in shapes]
    if tints is not None:
        noise = [tint + picture for tint, picture in zip(tints, noise, strict=True)]
    return [picture.clip(0, 255).astype(np.uint8) for picture in noise]


def noise_set(
    labels,  # one class index or one row per picture
    class_names,
    *,
    size=(8, 8),  # height and width; or one edge
    channels=3,
    shapes=None,  # one shape per picture instead of `size` and `channels`
    seed=0,
    low=0,
    high=256,
    tints=None,  # what is added to the noise of each class (a row counts for its largest entry)
    ids="{}.png",  # one per picture; or how each is written, with its place for the braces
    task="single",
    info=None,
):
    "A set of pictures of noise with these labels."
    labels = np.asarray(labels)
    height, width = (size, size) if isinstance(size, int) else size
    if tints is not None:
        tints = [tints[target] for target in (labels.argmax(1) if labels.ndim == 2 else labels)]
    pixels = noise_pictures(
        [(height, width, channels)] * len(labels) if shapes is None else shapes,
        seed=seed,
        low=low,
        high=high,
        tints=tints,
    )
    ids = [ids.format(index) for index in range(len(labels))] if isinstance(ids, str) else ids
    return LabeledImages(pixels, labels, class_names, ids, task, info=info)


def photographs(task="single", seed=0, size=16):
    "Seven pictures of three birds (the owl has one), or five with several birds each; a colour per bird."
    several = [[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
    draw = np.random.default_rng(seed)
    return noise_set(
        several if task == "multi" else [0, 0, 0, 1, 1, 1, 2],
        BIRDS,
        size=size,
        tints=draw.integers(60, 200, (3, 1, 1, 3)),
        seed=draw,
        low=-50,
        high=50,
        ids=task + "-{}.png",
        task=task,
    )
