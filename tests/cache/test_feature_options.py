"""What a group of options accepts, what it makes of it, and what it refuses by name."""

import subprocess
import sys
from typing import get_args

import pytest

from clasp_calib.cache.feature_options import FeatureOptions, PrecisionName
from clasp_calib.cache.precision import PRECISIONS
from clasp_calib.common.errors import CacheError, InputError


def test_layers_are_kept_once_and_ascending():
    assert FeatureOptions(layers=[9, 3, 9]).layers == (3, 9)
    assert FeatureOptions(layers=range(3)).layers_of(4, 3) == (0, 1, 2)
    assert FeatureOptions(layers=[0, 9]).layers_of(27, 27, (9, 17, 25)) == (0, 9, 17, 25)
    assert FeatureOptions().layers_of(24, 23) == (3, 9, 15, 20, 23)
    assert FeatureOptions(layers=[3, 9]) == FeatureOptions(layers=(9, 3))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"layers": ()}, r"layers \(--layers\) is \(\); expected 'auto', or indices"),
        ({"layers": (-1, 3)}, r"layers \(--layers\) is \(-1, 3\); expected"),
        ({"layers": 3}, r"layers \(--layers\) is 3; expected 'auto', or indices"),
        ({"layers": "all"}, r"layers \(--layers\) is 'all'; expected"),
        ({"precision": "float64"}, r"precision \(--precision\) is 'float64'; expected one of float16, bfloat16, int8"),
        ({"durability": None}, r"durability \(--durability\) is None; expected one of process, power"),
        ({"layout": "fast"}, r"layout \(--mode\) is 'fast'; expected one of auto, direct, portable"),
        ({"batch_size": 0}, r"batch_size \(--batch\) is 0; expected a number of at least 1"),
        ({"batch_size": "8"}, r"batch_size \(--batch\) is '8'; expected a number of at least 1"),
        ({"batch_size": None}, r"batch_size \(--batch\) is None; expected a number of at least 1"),
        ({"workers": -1}, r"workers \(--workers\) is -1; expected a number of at least 0"),
        ({"shard_bytes": -1}, "shard_bytes is -1; expected a number of at least 0"),
        ({"pixels": True, "precision": "int8"}, r"pixels \(--pixels\).* precision \(--precision\) do not apply"),
        ({"pixels": True, "layers": (1,)}, r"pixels \(--pixels\).* layers \(--layers\) and .* do not apply"),
    ],
)
def test_a_wrong_option_is_named_with_its_flag(given, said):
    with pytest.raises(InputError, match=said):
        FeatureOptions(**given)


def test_a_layer_that_the_tower_lacks_is_refused():
    with pytest.raises(CacheError, match=r"\[2, 5\]; expected some of 0 \(the embeddings\) to 4"):
        FeatureOptions(layers=(5, 2)).layers_of(4, 3)


def test_the_names_of_precisions_are_those_that_there_are():
    assert get_args(PrecisionName) == tuple(PRECISIONS)


def test_options_need_no_heavy_library():
    code = "import sys, clasp_calib.cache.feature_options; print(*{'torch', 'h5py', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
