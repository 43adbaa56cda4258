"""A closed-form backbone with two classes and photographs drawn from it, shared by tests of methods."""

import torch

from genaug.core import LabeledImages
from genaug.diffusion import ToyBackbone
from genaug.pictures import to_uint8


def toy_backbone(std=0.3):
    shapes = torch.full((2, 3, 8, 8), -0.5)
    shapes[0, 0, 2:6, 2:6] = 0.6
    shapes[1, 2, 1:7, 3:5] = 0.6
    return ToyBackbone(shapes, std, ["square", "bar"])


def toy_photographs(counts=(3, 3), seed=0, std=0.3):
    backbone = toy_backbone(std)
    targets = [index for index, count in enumerate(counts) for _ in range(count)]
    noise = torch.randn(len(targets), 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    images = to_uint8(backbone.decode(backbone.means[targets] + std * noise))
    return LabeledImages(
        images, targets, ["square", "bar"], [f"{position}.png" for position in range(len(targets))]
    )
