"""Options of a harness: what cannot be used, or not together, is named."""

import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.harness.harness_options import HarnessOptions


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "the model is missing; give pretrained=DIR"),
        ({"pretrained": "m", "artefact": "a"}, r"no option 'artefact' \(did you mean artifact\?\)"),
        ({"pretrained": "m", "trust": True}, r"no option 'trust'; the options of clasp are pretrained, artifact,"),
        ({"pretrained": "m", "artifact": "a", "method": "dart"}, "artifact=a and method=dart both say how to prune"),
        ({"pretrained": "m", "budget": 192}, "budget=192 is for an artifact or a method, and there is neither"),
        ({"pretrained": "m", "method": "dart"}, "method=dart needs a budget"),
        ({"pretrained": "m", "classes": "text"}, "classes=text is for a run with artifact=, and there is none"),
        ({"pretrained": "m", "strict": True}, "strict=True is for a run with artifact="),
        ({"pretrained": "m", "artifact": "a", "seed": 3}, "seed=3 is for a run with method="),
        ({"pretrained": "m", "artifact": "a", "solve_on": "t"}, "solve_on=t is for a run with method="),
        ({"pretrained": "m", "batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"pretrained": "m", "artifact": True}, "artifact is True; expected a text"),
        ({"pretrained": "m", "artifact": "a", "strict": "maybe"}, "strict is 'maybe'; expected True or False"),
    ],
)
def test_what_cannot_be_used_is_named(given, message):
    with pytest.raises(InputError, match=message):
        HarnessOptions.read(given)


def test_numbers_of_a_command_line_are_texts_where_texts_are_meant():
    options = HarnessOptions.read({"pretrained": 2024, "artifact": "a", "budget": 192})
    assert (options.pretrained, options.budget) == ("2024", "192")
