"""What one process does: batch norms shared among devices, and failures told with a remedy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medplus import finetune
from medplus.backbones.build import load_backbone
from medplus.errors import RunError
from medplus.training import process
from medplus.training.network import Network
from medplus.training.process import share_batch_norms

pytestmark = pytest.mark.usefixtures("fast_disk", "no_picture")


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
def test_sharing_batch_norms_changes_neither_what_a_network_computes_nor_its_names(name):
    backbone = load_backbone(name, "none", 32, "native", frozen=False).module
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = Network(backbone, nn.Linear(backbone(images).shape[1], 2)).eval()
    names, n_norms = list(network.state_dict()), count(network, nn.BatchNorm2d)
    with torch.no_grad():
        before = network(images)
        shared = share_batch_norms(network).eval()
        after = shared(images)
    assert torch.equal(before, after)
    assert list(shared.state_dict()) == names
    assert count(shared, nn.SyncBatchNorm) == n_norms > 0
    assert count(shared, nn.BatchNorm2d) == 0


def count(network, kind):
    return sum(isinstance(module, kind) for module in network.modules())


def test_last_batch_of_one_image_that_leaves_batch_norm_one_value_is_told(write_npz, tmp_path):
    npz = str(write_npz("toy", n=(17, 4, 4), size=32))
    tiny = {"backbone": "lcnet_035", "weights": "none", "fit": "native", "runs": tmp_path}
    with pytest.raises(RunError, match=r"lcnet_035 .* --batch-size .* or --norm-stats frozen"):
        finetune(npz, epochs=1, batch_size=16, **tiny)
    assert list(tmp_path.rglob("*.partial")) == []
    finetune(npz, epochs=1, batch_size=16, norm_stats="frozen", **tiny)
    finetune(npz, epochs=1, batch_size=15, **tiny)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            RuntimeError("some_kernel does not have a deterministic implementation, but you set …"),
            r"pixels has no deterministic gradient on cpu \(some_kernel.*; use --no-deterministic",
        ),
        (RuntimeError("shapes"), "^shapes$"),
        (ValueError("odd"), "^odd$"),
    ],
)
def test_other_failures_of_training(error, says, write_npz, tmp_path, monkeypatch):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(process.Trainer, "fit", fail)
    with pytest.raises((RunError, RuntimeError, ValueError), match=says):
        finetune(str(write_npz()), backbone="pixels", runs=tmp_path)
    assert list(tmp_path.rglob("*.partial")) == []
