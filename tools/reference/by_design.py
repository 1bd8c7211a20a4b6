"""What every page of results on the embedded model says of the model itself."""

BY_DESIGN = """\
**What was put in by design.** The embedded model was built to have what the method exploits. Its own vision layer lost
letters and patterns, which a shallower layer in the mixture brings back. The scoring layers of its decoder were trained
to find what a question asks for, but not for *counting* and *scene*. Its pictures are too full for random tokens. So
these numbers show whether a search finds what is there. They do not show what a real model gains, and they do not rank
methods for one. [What was put in](../design/embedded-model.md#what-was-put-in-by-design) lists all of it, and which
methods it helps or hurts."""
"""Markdown, for a page in docs/results/."""
