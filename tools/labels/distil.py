"""Distil the embedding's labels of questions from templates into a router, to see how good such a router is.

No near-duplicate of a reported question is among them. What it writes is not packaged: see docs/guide/router.md.

Example: python -m tools.labels.distil build/distilled.safetensors
"""

import argparse
from pathlib import Path

import clasp_calib as cc
from clasp_calib.api.routers import train_router
from clasp_calib.router_labeling.router_file import write_router
from tools.labels.train import REPORT, apart, pool_questions, read_questions

DRAWS, SEED = 16, 11
"""Questions of each template."""


def main() -> None:
    """Label, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--draws", type=int, default=DRAWS, help="questions of each template")
    arguments = parser.parse_args()
    pool = apart(pool_questions(arguments.draws, SEED), [row.question for row in read_questions(REPORT)])
    labelled = cc.label([{"question": row.question} for row in pool], labeler=cc.EmbeddingLabeler())
    trained = train_router(labelled, force=True)
    write_router(trained.router, arguments.out)
    print(f"{len(pool)} questions; agreement with their labels, held out: {trained.agreement}")


if __name__ == "__main__":
    main()
