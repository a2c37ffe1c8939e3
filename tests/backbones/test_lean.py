"""timm and torchvision come without torch's compiler, and still have it where they want it."""

import subprocess
import sys

CODE = """
import sys
import torch
disable = torch.compiler.disable
from medplus.backbones.lean import timm, torchvision
loaded = [name for name in ("torch._dynamo", "sympy", "wandb") if name in sys.modules]
assert not loaded, loaded
assert timm is sys.modules["timm"] and torchvision is sys.modules["torchvision"]
assert torch.compiler.disable is disable

# What was put off is there when it is wanted.
assert timm.layers.disable_compiler(lambda x: x + 1)(1) == 2
assert sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu") is True
import torch._dynamo
network = torch.nn.Linear(2, 2)
assert torch.compile(network, backend="eager")(torch.ones(1, 2)).shape == (1, 2)
"""


def test_they_bring_nothing_for_compilers_and_loggers_until_it_is_wanted():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
