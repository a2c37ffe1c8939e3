"""Batch sizes and compilation are chosen by measured times; embeddings do not depend on either."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medplus.backbones.build import Backbone
from medplus.backbones.inference import Embedder
from medplus.backbones.sources import BackboneRef
from medplus.embeddings.tuning import BatchSearch, Tuned
from medplus.preprocess import PreprocessSpec
from medplus.remembered import recall, remember

CPU = torch.device("cpu")
SIZES = (8, 16, 32, 64)


class World:
    """A clock, and what a batch takes on it: a part for its start, and one for each image."""

    def __init__(self, start_s: float = 0.0, image_s: float = 1.0, most: int = 10**6) -> None:
        self.start_s, self.image_s, self.most = start_s, image_s, most
        self.now, self.speedup, self.compile_s = 0.0, 1.0, 20.0
        self.compilations: list[int] = []
        self.batches: list[int] = []

    def clock(self) -> float:
        return self.now


class Slow(nn.Module):
    """The first channel's sums over the rows of images; takes its time on the world's clock."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.world.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.world.batches.append(len(x))
        self.world.now += self.world.start_s + len(x) * self.world.image_s
        return x[:, 0].sum(1)


class Pretending(Embedder):
    """An embedder whose compiled network is the same one, faster on the world's clock."""

    world: World

    def compile(self, images: torch.Tensor) -> bool:
        self.world.compilations.append(len(images))
        self.world.now += self.world.compile_s
        self.is_compiled = self.world.speedup > 0
        return self.is_compiled

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        before = self.world.now
        result = super().__call__(images)
        if self.is_compiled:
            self.world.now = before + (self.world.now - before) / self.world.speedup
        return result


def embedder(world: World) -> Pretending:
    spec = PreprocessSpec((0.0,) * 3, (1.0,) * 3, "native", None)
    ref = BackboneRef("timm", "slow", "slow", "slow", "none")
    made = Pretending(
        Backbone(ref, spec, "0" * 64, "prelogits", module=Slow(world)),
        CPU,
        "fp32",
        10**6,
        window=False,
    )
    made.world = world
    return made


def embed_all(world: World, n: int, folder, **options) -> tuple[Tuned, torch.Tensor]:
    """Embed n images block by block, as the pipeline does."""
    images = torch.randint(0, 256, (n, 4, 4), dtype=torch.uint8)
    tuned = Tuned(embedder(world), n, 16, clock=world.clock, folder=folder, **options)
    found = torch.cat([tuned(images[i : i + tuned.block]) for i in range(0, n, tuned.block)])
    torch.testing.assert_close(found, images.float().div(255).sum(1))
    assert sum(world.batches) == n  # none was computed twice
    return tuned, found


# --- which batch size ---------------------------------------------------------------------------


@given(st.lists(st.floats(1.0, 1000.0), min_size=1, max_size=6))
def test_the_size_that_is_taken_is_as_fast_as_the_best_that_was_tried(rates):
    sizes = [8 * 2**i for i in range(len(rates))]
    by_size, tried = dict(zip(sizes, rates, strict=True)), []
    search = BatchSearch(sizes, 0.95)
    while search.rate is None:
        tried.append(search.size)
        search.took(search.size / by_size[search.size])
    assert sorted(set(tried)) == sizes[: len(set(tried))]
    best = max(by_size[size] for size in tried)
    assert search.rate == pytest.approx(by_size[search.size])
    assert search.rate >= 0.97 * best * (1 - 1e-9)
    rising = [a for a in range(1, len(sizes)) if rates[a] < 0.95 * max(rates[:a])]
    assert max(tried) == sizes[rising[0] if rising else -1]


def test_the_first_batch_of_a_size_does_not_count():
    search = BatchSearch((64, 128), 0.95)
    for seconds in (100.0, 1.0, 3.0, 1000.0, 6.0, 6.0):
        assert search.rate is None
        search.took(seconds)
    assert (search.size, search.rate) == (64, 32.0)


def test_sizes_are_timed_over_as_many_images():
    search, counted = BatchSearch((8, 16, 32), 0.5), {8: 0, 16: 0, 32: 0}
    while search.rate is None:
        counted[search.size] += search.size
        search.took(search.size)
    assert {size: n - size for size, n in counted.items()} == {8: 64, 16: 64, 32: 64}


def test_where_each_size_has_to_gain_a_plateau_ends_the_search():
    search = BatchSearch((64, 128, 256, 512), 1.05)
    for rate in (100.0, 100.0, 100.0, 102.0, 102.0, 102.0):
        assert search.rate is None
        search.took(search.size / rate)
    assert search.size == 64


@pytest.mark.parametrize(("start_s", "image_s", "best"), [(0, 1, 8), (1000, 0, 64), (2, 1, 32)])
def test_the_fastest_batch_size_is_found_on_the_work_itself(start_s, image_s, best, tmp_path):
    world = World(start_s, image_s)
    tuned, _ = embed_all(world, 640, tmp_path, compiled=False)
    assert tuned.batch_size == best
    assert set(world.batches[-3:]) == {best}
    assert world.batches[:9] == [8] * 9


def test_what_was_measured_is_used_at_once_the_next_time(tmp_path):
    embed_all(World(start_s=1000), 640, tmp_path, compiled=False)
    world = World(image_s=1)  # where 8 would be taken
    embed_all(world, 640, tmp_path, compiled=False)
    assert set(world.batches) == {64}


def test_a_given_batch_size_stays(tmp_path):
    world = World()
    tuned, _ = embed_all(world, 500, tmp_path, batch_size=50)
    assert set(world.batches) == {50}
    assert tuned.block == tuned.batch_size == 50


def test_few_images_are_embedded_before_anything_is_known(tmp_path):
    tuned, _ = embed_all(World(), 5, tmp_path)
    assert not tuned.is_compiled
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_does_not_fit_ends_the_search_and_no_image_is_lost(tmp_path):
    world = World(start_s=1000, most=20)
    tuned, _ = embed_all(world, 640, tmp_path)
    assert tuned.batch_size == 16
    assert set(world.batches[20:]) == {16}


# --- whether to compile -------------------------------------------------------------------------


def test_it_is_compiled_where_that_pays_and_used_where_it_is_faster(tmp_path):
    world = World()
    world.speedup = 1.5
    tuned, _ = embed_all(world, 2000, tmp_path)
    assert world.compilations == [8]
    assert tuned.is_compiled
    assert world.now < 2000  # less than without, with 20 s to compile


def test_a_compiled_network_that_is_slower_is_not_used(tmp_path):
    world = World()
    world.speedup = 0.9
    tuned, _ = embed_all(world, 2000, tmp_path)
    assert len(world.compilations) == 1
    assert not tuned.is_compiled
    again = World()
    embed_all(again, 20_000, tmp_path)
    assert again.compilations == []  # it is known by now


def test_what_compiling_brought_and_took_decides_the_next_time(tmp_path):
    world = World()
    world.speedup, world.compile_s = 2.0, 1000.0
    embed_all(world, 2000, tmp_path)
    [file] = tmp_path.iterdir()
    [key] = json.loads(file.read_text())
    kept = recall(file.stem, key, tmp_path)
    assert kept is not None
    assert (kept["images_per_second"], kept["compiled"]) == pytest.approx((1.0, 2.0))
    assert kept["compile_seconds"] == pytest.approx(1000.0)
    for n, expected in ((2000, []), (4000, [8])):  # 1000 s are saved, and 2000
        world = World()
        world.speedup = 2.0
        embed_all(world, n, tmp_path)
        assert world.compilations == expected


def test_what_another_version_kept_is_measured_anew(tmp_path):
    embed_all(World(), 2000, tmp_path)
    [file] = tmp_path.iterdir()
    [key] = json.loads(file.read_text())
    remember(file.stem, key, {"batch": 64}, tmp_path)
    world = World()
    embed_all(world, 2000, tmp_path)
    assert world.batches[0] == SIZES[0]


@pytest.mark.parametrize("n", [100, 300])
def test_few_images_are_not_worth_compiling(n, tmp_path):
    world = World()
    embed_all(world, n, tmp_path)
    assert world.compilations == []


def test_compiling_is_done_when_asked_for_and_never_when_not(tmp_path):
    for asked, n in ((True, 800), (False, 20_000)):
        world = World()
        tuned, _ = embed_all(world, n, tmp_path, compiled=asked)
        assert (len(world.compilations) == 1) is tuned.is_compiled is asked
        assert tuned.compile_seconds == (world.compile_s if asked else 0.0)


def test_a_compiler_that_fails_is_tried_once(tmp_path):
    world = World()
    world.speedup = 0.0
    tuned, _ = embed_all(world, 2000, tmp_path, compiled=True)
    assert len(world.compilations) == 1
    assert not tuned.is_compiled
