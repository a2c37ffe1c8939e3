"""Images to extract from, and backbones of the tests' own."""

from __future__ import annotations

import pytest

from medplus.backbones import build
from medplus.backbones.build import Backbone
from medplus.backbones.sources import BackboneRef
from medplus.preprocess import PreprocessSpec


@pytest.fixture(scope="module")
def npz(write_npz):
    """1,100 + 40 + 30 images of 8 px: two chunks of train, one each of val and test."""
    return write_npz("toy", n=(1100, 40, 30), size=8, classes=3)


@pytest.fixture
def use_backbone(monkeypatch):
    """Let the pipeline find a module of the test's own under any backbone's name."""

    def use(module, tag="own.tag"):
        spec = PreprocessSpec(mean=(), std=(), fit="native", canvas=None, rgb=False)
        ref = BackboneRef("timm", "own", "own", tag, "none")
        backbone = Backbone(ref, spec, "0" * 64, "prelogits", module=module.eval())
        monkeypatch.setattr(build, "load", lambda *rest, **more: backbone)

    return use
