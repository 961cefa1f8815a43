"""What a network is, wherever its numbers lie: deep inside, in a class, a closure, a setting read on import."""

from __future__ import annotations

import logging
import subprocess
import sys
import weakref
from textwrap import dedent

import pytest
import torch
from torch import nn

from mmedge.export.identity import digest_of
from mmedge.export.user_code import code_digest, import_anew, importable

pytestmark = pytest.mark.parallel

# Places where a module of the user's keeps a number that it reads when it is imported.
PLACES = {
    "a class": "class Net:\n    table = {0}",
    "a class, as a tensor": "import torch\nclass Net:\n    table = torch.full((2,), {0})",
    "an object": "class Settings:\n    def __init__(self):\n        self.k = {0}\nSETTINGS = Settings()",
    "a mapping of objects": "class Settings:\n    def __init__(self):\n        self.k = {0}\nALL = {{'a': Settings()}}",
    "argparse": "import argparse\nSETTINGS = argparse.Namespace(k={0})",
    "partial": "from functools import partial\nact = partial(pow, {0})",
    "a closure": "def build(k):\n    return lambda x: x * k\nact = build({0})",
    "a default": "def act(x, *, k={0}):\n    return x * k",
}


def chain(depth: int, last: float) -> nn.Module:
    module: nn.Module = nn.Linear(1, 1)
    nn.init.constant_(module.weight, last)
    nn.init.zeros_(module.bias)
    for _ in range(depth):
        module = nn.Sequential(module)
    return module


@pytest.mark.parametrize("depth", [1, 60, 150])
def test_a_weight_counts_however_deep_it_lies(depth):
    assert digest_of(chain(depth, 1.0)) == digest_of(chain(depth, 1.0))
    assert digest_of(chain(depth, 1.0)) != digest_of(chain(depth, 2.0))


def test_what_a_method_of_an_object_or_a_reference_leads_to_counts():
    one, two = torch.ones(2), torch.full((2,), 2.0)
    assert digest_of(one.mul) == digest_of(torch.ones(2).mul) != digest_of(two.mul)
    held = chain(0, 1.0), chain(0, 2.0)
    assert digest_of(weakref.ref(held[0])) != digest_of(weakref.ref(held[1]))


def test_loggers_of_the_process_do_not_count():
    logger = logging.getLogger("tests.identity")
    before = digest_of({"log": logger})
    logging.getLogger("tests.identity.other").setLevel(logging.DEBUG)
    logger.addHandler(logging.NullHandler())
    assert digest_of({"log": logger}) == before


@pytest.mark.parametrize("place", PLACES)
def test_a_number_that_a_module_reads_on_import_counts_wherever_it_keeps_it(tmp_path, place):
    (tmp_path / "netparts.py").write_text(
        "from pathlib import Path\n" + PLACES[place].format("float(Path(__file__).with_name('k').read_text())")
    )

    def digest(number: str) -> bytes:
        (tmp_path / "k").write_text(number)
        import_anew()
        with importable(tmp_path):
            return code_digest(["netparts:make"], tmp_path)

    try:
        assert digest("1") == digest("1") != digest("2")
    finally:
        import_anew()


def test_the_same_in_every_process(tmp_path):
    """Also of what a process numbers or registers for itself."""
    code = dedent("""
        import itertools, logging, random, re, threading, torch, sys
        from torch import nn
        from mmedge.export.identity import digest_of
        for n in range(random.randrange(9)):
            logging.getLogger(f"l{n}")
            nn.Linear(1, 1).register_forward_hook(print)
        net = nn.Sequential(nn.Linear(2, 2))
        nn.init.ones_(net[0].weight); nn.init.ones_(net[0].bias)
        net.register_forward_hook(len)
        net.log, net.lock, net.pattern = logging.getLogger("x"), threading.Lock(), re.compile("a")
        net.count, net.device, net.dtype = itertools.count(), torch.device("cpu"), torch.float16
        print(digest_of(net).hex())
    """)
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in "ab"]
    assert runs[0].stdout == runs[1].stdout
