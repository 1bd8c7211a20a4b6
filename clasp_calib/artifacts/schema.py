"""The JSON Schema of ``artifact.json``, which ships beside this module for readers that are not Python.

``python -m clasp_calib.artifacts.schema`` writes it anew after the manifest has changed.
"""

import json
from pathlib import Path
from typing import Any

from clasp_calib.artifacts.manifest import FORMAT, Manifest

SCHEMA = Path(__file__).with_name(f"artifact-format-{FORMAT}.schema.json")


def json_schema() -> dict[str, Any]:
    """The schema, as the shipped file must hold it."""
    schema = Manifest.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "clasp-calib artifact"}


def main() -> None:
    """Write the schema."""
    SCHEMA.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
