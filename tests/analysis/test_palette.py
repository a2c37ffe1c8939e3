import numpy as np
import pytest
from matplotlib.markers import MarkerStyle

from medplus.analysis.drawing import palette
from medplus.backbones.catalog import PAPER


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("of", ["colour", "marker"])
def test_papers_ten_look_different(of):
    assert len({getattr(palette.look_of(name, []), of) for name in PAPER}) == 10


@pytest.mark.parametrize("colour", [palette.look_of(name, []).colour for name in PAPER])
def test_colours_stand_out_on_white_and_on_the_dark_ground(colour):
    page, light = luminance("#1a2029"), luminance(colour)
    assert 1.05 / (light + 0.05) >= 3
    assert (light + 0.05) / (page + 0.05) >= 2.5


def test_others_look_alike_in_every_order_of_the_table():
    names = ["vgg16", "zebra", "ant", "pixels"]
    looks = [palette.look_of("zebra", order) for order in (names, names[::-1])]
    assert looks[0] == looks[1]
    assert palette.look_of("ant", names) != looks[0]


def test_markers_are_matplotlibs():
    for name in [*PAPER, "pixels", *(f"net{i}" for i in range(6))]:
        MarkerStyle(palette.look_of(name, [f"net{i}" for i in range(6)]).marker)
