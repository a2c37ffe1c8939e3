"""The exact forward of a network on padded images, computed only where an image can matter.

Small images are padded with zeros to 224 px *after* normalisation: at 28 px, 98.4 % of the canvas
is the same for every image. What a convolution, a pool or an element-wise layer gives outside the
image's receptive field is then the same for every image, too: it is computed once, and each layer
only on the window that the image can have changed. A layer that mixes all places, as global
pooling, attention and squeeze-and-excitation do, gets the whole map, put together from both.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import fx, nn

from medplus.backbones.sliding import Sliding, Window, inside, part, share_of, union

log = logging.getLogger(__name__)

_WHOLE = 0.85
"""A window of this share of a map is no longer worth its frame."""
_WORTHWHILE = 0.85
"""Share of the multiplications that may be left: what is cut and pasted takes time, too."""
_TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}

_ELEMENTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh,
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d,
)  # fmt: skip
_ELEMENTWISE_FUNCTIONS = {
    F.relu, F.relu_, F.relu6, F.silu, F.gelu, F.hardswish, F.leaky_relu, F.dropout, F.batch_norm,
    torch.relu, torch.relu_, torch.sigmoid,
}  # fmt: skip
_SUMS = {operator.add, operator.iadd, torch.add}


class Windowed(fx.Interpreter):
    """A traced network that computes, of padded images, only what they change.

    Parameters
    ----------
    network : fx.GraphModule
        In eval mode; maps (n, channels, height, width) to (n, dim).
    window : Window
        Where images stand in the canvas; all else in it is zero.
    canvas : Tensor, shape (1, channels, height, width)
        Zeros, of the dtype and memory format that images will have.

    Attributes
    ----------
    left : float
        Share of the multiplications of convolutions and linear layers that are left.
    """

    def __init__(self, network: fx.GraphModule, window: Window, canvas: torch.Tensor) -> None:
        super().__init__(network)
        self._background = _maps_of(network, canvas)
        self._windows: dict[fx.Node, Window] = {}
        self._steps: dict[fx.Node, Callable[[fx.Node], torch.Tensor]] = {}
        self._frames: dict[tuple[fx.Node, fx.Node], torch.Tensor] = {}
        self._borrowed: set[fx.Node] = set()
        self._keeps_frames = True
        convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
        last = any(not m.weight.is_contiguous() for m in convolutions)
        self._format = torch.channels_last if last else torch.contiguous_format
        all_of_it = some_of_it = 0.0
        for node in self.graph.nodes:
            self._plan(node, window)
            whole, part = self._multiplications(node)
            all_of_it, some_of_it = all_of_it + whole, some_of_it + part
        self.left = some_of_it / all_of_it if all_of_it else 1.0
        self._background = {node: self._background[node] for node in self._windows}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the network gives for padded images."""
        result: torch.Tensor = self.run(images)
        return result

    def unrolled(self, images: torch.Tensor) -> nn.Module:
        """Return what is computed for batches of just this shape, as a graph for a compiler."""
        from torch.fx.experimental.proxy_tensor import make_fx

        def forward(batch: torch.Tensor) -> torch.Tensor:
            return self(batch)

        self._keeps_frames = False  # a graph that writes to memory of its own cannot be fused
        try:
            return make_fx(forward)(images)
        finally:
            self._keeps_frames = True

    def run_node(self, node: fx.Node) -> Any:
        """Compute a node: of its map only the window, where it has one."""
        step = self._steps.get(node)
        return super().run_node(node) if step is None else step(node)

    def map_nodes_to_values(self, args: Any, n: fx.Node) -> Any:  # noqa: D102 - the base class's
        def value(node: fx.Node) -> Any:
            if node not in self._windows:
                return self.env[node]
            return self._framed(n, node, self._all_of(node)).clone()

        return fx.node.map_arg(args, value)

    def _plan(self, node: fx.Node, window: Window) -> None:
        """Settle how a node is computed; without a step it takes and gives whole maps."""
        if node.op == "placeholder" and node in self._background:
            self._windows[node], self._steps[node] = window, self._cut
            self._borrowed.add(node)
            return
        windowed = [one for one in node.all_input_nodes if one in self._windows]
        if not windowed or node not in self._background or len(self._background[node].shape) != 4:
            return
        layer = self._layer(node)
        slide = Sliding.of(layer) if layer is not None else None
        if slide is not None:
            shape = self._background[node].shape[2:]
            reached = slide.reached(self._windows[windowed[0]], shape)
            if share_of(reached, shape) < _WHOLE:
                self._windows[node] = reached
                self._steps[node] = lambda one: self._slid(one, slide)
            else:
                self._steps[node] = lambda one: self._filled(one, layer)
        elif self._is_elementwise(node, layer):
            self._windows[node] = self._windows[windowed[0]]
            self._steps[node] = self._elementwise
        elif len(windowed) == len(node.all_input_nodes) and self._joins(node):
            joint = union([self._windows[one] for one in windowed])
            if share_of(joint, self._background[node].shape[2:]) < _WHOLE:
                self._windows[node] = joint
                self._steps[node] = self._summed if node.target in _SUMS else self._joined
                if node.target not in _SUMS:
                    self._borrowed.add(node)

    def _layer(self, node: fx.Node) -> nn.Module | None:
        named = node.op == "call_module"
        return self.module.get_submodule(str(node.target)) if named else None

    def _is_elementwise(self, node: fx.Node, layer: nn.Module | None) -> bool:
        if layer is not None:
            return type(layer) in _ELEMENTWISE_MODULES
        if node.target not in _ELEMENTWISE_FUNCTIONS:
            return False
        # Whatever else goes in must be parameters, the same at all places.
        return all(one.op == "get_attr" for one in node.all_input_nodes[1:])

    def _joins(self, node: fx.Node) -> bool:
        if node.target in _SUMS:
            return all(isinstance(one, fx.Node) for one in node.args) and not node.kwargs
        along = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        return node.target is torch.cat and along in (1, -3)

    def _multiplications(self, node: fx.Node) -> tuple[float, float]:
        """Return those of a layer on the whole map, and on its window."""
        layer = self._layer(node)
        made = self._background.get(node)
        if made is None or not isinstance(layer, nn.Conv2d | nn.Linear):
            return 0.0, 0.0
        whole = float(made.numel() * layer.weight[0].numel())
        share = share_of(self._windows[node], made.shape[2:]) if node in self._windows else 1.0
        return whole, share * whole

    def _all_of(self, node: fx.Node) -> Window:
        height, width = self._background[node].shape[2:]
        return (0, height), (0, width)

    def _cut(self, node: fx.Node) -> torch.Tensor:
        images: torch.Tensor = super().run_node(node)
        return part(images, self._windows[node])

    def _slid(self, node: fx.Node, slide: Sliding) -> torch.Tensor:
        [source] = node.all_input_nodes
        needed = slide.needed(self._windows[node])
        return slide.unpadded(self._framed(node, source, needed, slide.fill))

    def _filled(self, node: fx.Node, layer: Any) -> torch.Tensor:
        [source] = node.all_input_nodes
        result: torch.Tensor = layer(self._framed(node, source, self._all_of(source)))
        return result

    def _elementwise(self, node: fx.Node) -> Any:
        def value(one: fx.Node) -> Any:
            held = self.env[one]
            return held.clone() if one in self._borrowed else held

        args, kwargs = (fx.node.map_arg(given, value) for given in (node.args, node.kwargs))
        return getattr(self, node.op)(node.target, args, kwargs)

    def _summed(self, node: fx.Node) -> torch.Tensor:
        summands: Any = node.args
        first, second = (self._framed(node, one, self._windows[node]) for one in summands)
        return first + second

    def _joined(self, node: fx.Node) -> torch.Tensor:
        """Concatenate along the channels, into a frame of what lies around the windows."""
        sources: Any = node.args[0]
        frame = self._frame(node, node, self._windows[node], 0.0, len(self.env[sources[0]]))
        first = 0
        for source in sources:
            channels = self.env[source].shape[1]
            place = inside(self._windows[source], self._windows[node])
            part(frame[:, first : first + channels], place).copy_(self.env[source])
            first += channels
        return frame

    def _framed(
        self, node: fx.Node, source: fx.Node, region: Window, fill: float = 0.0
    ) -> torch.Tensor:
        """Return a region of a map: its window, and around it what is always the same.

        It is valid until the next forward, and not to be changed.
        """
        window, patch = self._windows[source], self.env[source]
        if all(w[0] <= r[0] and r[1] <= w[1] for w, r in zip(window, region, strict=True)):
            return part(patch, inside(region, window))
        frame = self._frame(node, source, region, fill, len(patch))
        shared: Any = tuple(
            (max(w[0], r[0]), max(r[0], min(w[1], r[1])))
            for w, r in zip(window, region, strict=True)
        )
        part(frame, inside(shared, region)).copy_(part(patch, inside(shared, window)))
        return frame

    def _frame(
        self, node: fx.Node, source: fx.Node, region: Window, fill: float, n: int
    ) -> torch.Tensor:
        frame = self._frames.get((node, source))
        if frame is None or len(frame) < n or not self._keeps_frames:
            background = self._background[source]
            (top, bottom), (left, right) = region
            height, width = background.shape[2:]
            there = ((max(0, top), min(height, bottom)), (max(0, left), min(width, right)))
            beyond = (-left, right - width, -top, bottom - height)
            padded = F.pad(part(background, there), [max(0, side) for side in beyond], value=fill)
            frame = padded.expand(n, -1, -1, -1).contiguous(memory_format=self._format)
            # An expanded map of one image may count as contiguous in the other format.
            frame = frame.clone(memory_format=self._format)
            if self._keeps_frames:
                self._frames[node, source] = frame
        return frame[:n]


def windowed(
    module: nn.Module, images: torch.Tensor, window: Window
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a forward that computes only what images change; the module where that saves little.

    Which one it is depends on the network and the window alone, never on a measured time: the
    same images must give the same embeddings tomorrow.

    Parameters
    ----------
    module : nn.Module
        In eval mode, on the device of the images.
    images : Tensor, shape (n, channels, height, width)
        The first batch, on which both ways are compared.
    window : Window
        Where in it the images stand; all else is zero.
    """
    if share_of(window, images.shape[2:]) == 1.0:
        return module
    expected = module(images)
    try:
        graph = module if isinstance(module, fx.GraphModule) else traced(module)
        found = Windowed(graph, window, torch.zeros_like(images[:1]))
        if found.left > _WORTHWHILE:
            return module
        difference = (expected - found(images)).float().norm() / expected.float().norm()
    except Exception as error:  # tracing fails in as many ways as there are networks
        log.debug("no windows: %s", error)
        return module
    if not difference <= _TOLERANCE.get(expected.dtype, _TOLERANCE[torch.float32]):
        log.warning("windows would move embeddings by %.2g, and are not used", difference)
        return module
    return found


class _Tracer(fx.Tracer):
    """A tracer that takes a module which it cannot look into as one layer."""

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        outside = self.module_stack.copy()
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.module_stack = outside  # or all around it would be taken as one layer, too
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


def traced(module: nn.Module) -> fx.GraphModule:
    """Return a network as a graph; a module in it that cannot be looked into is one layer of it."""
    graph = fx.GraphModule(module, _Tracer().trace(module)).eval()
    graph.graph.eliminate_dead_code()  # of modules, what was seen before they were taken as one
    return graph


def _maps_of(network: fx.GraphModule, canvas: torch.Tensor) -> dict[fx.Node, torch.Tensor]:
    """Return what every node gives for an empty canvas."""
    interpreter = fx.Interpreter(network, garbage_collect_values=False)
    interpreter.run(canvas)
    return {n: made for n, made in interpreter.env.items() if isinstance(made, torch.Tensor)}
