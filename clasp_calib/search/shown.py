"""Where others may watch the trials of a search: nowhere, unless there is a place to show them."""

from clasp_calib.calib.scoring.candidate import Candidate


class Trials:
    """The trials of one class at one budget, a candidate each, shown to nobody.

    Whoever shows them derives from it. Telling the same again changes nothing.
    """

    def report(self, candidate: Candidate, samples: int, mean: float) -> None:
        """The mean score of a candidate over its first samples; its trial begins with the first report."""

    def reject(self, candidate: Candidate) -> None:
        """The trial ends as rejected, with its last mean score."""

    def complete(self, candidate: Candidate, mean: float) -> None:
        """The trial ends as complete, with its mean score on the calibration samples."""
