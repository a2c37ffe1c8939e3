"""Weights files with code in them, or that become more than they are."""

from __future__ import annotations

import struct
import zipfile

import pytest
import torch

from medplus.backbones.weights import read_weights_file, state_sha256
from medplus.errors import BackboneError
from tests.hostile.limits import outcome


def holding_itself() -> object:
    state: dict[str, object] = {}
    state["state_dict"] = state
    return state


def nested(levels: int) -> object:
    state: dict[str, object] = {"w": torch.zeros(2)}
    for _ in range(levels):
        state = {"model": state}
    return state


FORGED = {
    "one number for a trillion": {"w": torch.zeros(1).expand(10**6, 10**6)},
    "no numbers at all": {"w": torch.zeros(3, device="meta")},
    "sparse": {"w": torch.zeros(3, 3).to_sparse()},
    "no state but itself": holding_itself(),
    "itself by a detour": {"model": {"state_dict": holding_itself()}},
}


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_forged_state_is_refused(what, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(FORGED[what], path)
    assert outcome(lambda: state_sha256(read_weights_file(path))).startswith("refused: ")


def test_tied_and_transposed_weights_are_read(tmp_path):
    """Views of a common storage are honest, as long as no number stands for several."""
    shared = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": shared, "b": shared, "c": shared.T, "d": shared[1:2]}, tmp_path / "w.pth")
    found = read_weights_file(tmp_path / "w.pth")
    assert torch.equal(found["c"], shared.T)
    assert torch.equal(found["d"], shared[1:2])


def test_state_within_many_others_is_found(tmp_path):
    torch.save(nested(50), tmp_path / "w.pth")
    assert list(read_weights_file(tmp_path / "w.pth")) == ["w"]


def test_state_that_inflates_is_refused(tmp_path):
    """torch itself stores, but reads what is deflated: zeros shrink to a thousandth."""
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"w": torch.zeros(1 << 25)}, plain)
    with zipfile.ZipFile(plain) as one, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as other:
        for member in one.infolist():
            other.writestr(member.filename, one.read(member))
    plain.unlink()
    assert "is compressed" in outcome(lambda: read_weights_file(bomb))


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":' * 50_000,
        b'{"w":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
        b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b"\xff" * 16,
    ],
    ids=["nested deep", "a trillion elements", "a negative extent", "no text"],
)  # fmt: skip
def test_header_of_safetensors_that_lies(header, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert outcome(lambda: read_weights_file(path)).startswith("refused: ")


def test_header_of_safetensors_longer_than_any_file(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60))
    with pytest.raises(BackboneError, match="damaged"):
        read_weights_file(path)
