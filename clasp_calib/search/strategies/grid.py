"""Exhaustive search: every candidate on every sample."""

from dataclasses import dataclass

from clasp_calib.search.strategies.class_by_class import ClassByClass, OneClass, Questions


@dataclass(frozen=True)
class Grid(ClassByClass):
    """Measures everything: what the other strategies are judged by."""

    def course(self, one: OneClass) -> Questions:
        """A single question."""
        yield range(one.samples), range(len(one.candidates))
