"""Random interleavings of all that a store can do, against a dictionary of arrays."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from store_support import flip_bit, key_of, writer

from clasp_calib.cache.maintenance import collect_garbage, contents
from clasp_calib.cache.precision import PRECISIONS, Stored
from clasp_calib.cache.store import FeatureStore

CHANNELS = 70
LAYERS = (1, 2, 5)
PICTURES = st.integers(0, 7)


def bits(values: torch.Tensor) -> bytes:
    return values.contiguous().view(torch.uint8).numpy().tobytes()


class StoreMachine(RuleBasedStateMachine):
    @initialize(
        name=st.sampled_from(sorted(PRECISIONS)), ragged=st.booleans(), slots=st.integers(1, 4), portable=st.booleans()
    )
    def begin(self, name, ragged, slots, portable):
        self.layout = "portable" if portable else "direct"
        self.root = Path(tempfile.mkdtemp())
        self.precision, self.ragged = PRECISIONS[name], ragged
        self.shard_bytes = slots * 3 * 9 * 2 * CHANNELS
        self.model: dict[tuple[int, int], Stored] = {}
        self.layers = LAYERS
        self.open(LAYERS)

    def open(self, layers):
        self.layers = tuple(layers)
        shape = (None if self.ragged else 9, CHANNELS)
        given = {"precision": self.precision.name, "shard_bytes": self.shard_bytes, "layout": self.layout}
        self.store = writer(self.root, self.layers, shape, **given)

    def tokens(self, number):
        return 4 + 3 * number if self.ragged else 9

    def made(self, number):
        stored = self.store.form.empty(len(self.layers), self.tokens(number))
        for at, layer in enumerate(self.layers):
            noise = np.random.default_rng((number, layer))
            for part in stored:
                if part is not None:
                    size = part[at].nbytes
                    part[at] = np.frombuffer(noise.bytes(size), part.dtype).reshape(part[at].shape)
        return stored

    @rule(numbers=st.lists(PICTURES, min_size=1, max_size=4))
    def put(self, numbers):
        batch = [self.made(number) for number in numbers]
        new = {n for n in numbers if any((n, layer) not in self.model for layer in self.layers)}
        assert self.store.put([key_of(n) for n in numbers], batch) == len(new)
        for number, stored in zip(numbers, batch, strict=True):
            for at, layer in enumerate(self.layers):
                self.model.setdefault((number, layer), stored.at([at]))

    @rule(layers=st.lists(st.sampled_from([0, 1, 2, 5, 9]), min_size=1, max_size=3, unique=True))
    def add_layers(self, layers):
        self.store.close()
        self.open(layers)

    @rule(wanted=st.sets(PICTURES))
    def collect(self, wanted):
        self.store.close()
        unused = {number for number, _ in self.model} - wanted
        if self.model:
            assert collect_garbage(self.root, [key_of(n) for n in wanted])[0] == len(unused)
        self.model = {place: stored for place, stored in self.model.items() if place[0] in wanted}
        self.open(self.layers)

    @rule(data=st.data())
    def damage_and_drop(self, data):
        if not self.model:
            return
        places = data.draw(st.lists(st.sampled_from(sorted(self.model)), min_size=1, max_size=3, unique=True))
        for number, layer in places:
            flip_bit(self.root, self.store, number, layer)
        dropped = self.store.drop_damaged()
        assert sorted((int(damage.key, 16), damage.layer) for damage in dropped) == sorted(places)
        for place in places:
            del self.model[place]

    @rule(number=PICTURES)
    def missing(self, number):
        lacks = any((number, layer) not in self.model for layer in self.layers)
        assert self.store.missing([key_of(number)]) == [key_of(number)] * lacks

    @invariant()
    def everything_is_there(self):
        if not hasattr(self, "root"):
            return
        with FeatureStore.open(self.root) as reader:
            for (number, layer), expected in self.model.items():
                got = reader.read(key_of(number), [layer])
                assert bits(got) == bits(self.precision.decode(expected))
            assert list(reader.verify()) == []
        assert contents(self.root).slabs == len(self.model)

    def teardown(self):
        if hasattr(self, "root"):
            self.store.close()
            shutil.rmtree(self.root)


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestStore = StoreMachine.TestCase
