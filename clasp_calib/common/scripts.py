"""How the package's modules end when they are run as scripts."""

import sys
from collections.abc import Callable

from clasp_calib.common.errors import ClaspError


def ended(main: Callable[[], None]) -> int:
    """Run a script's main and return its exit code: what a user can mend is one line on stderr and code 2."""
    try:
        main()
    except (ClaspError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0
