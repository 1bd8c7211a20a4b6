"""Under which names pictures of COCO lie, as its archives unpack."""

FOLDERS = ("val2014", "train2014", "test2015", "val2017", "train2017")


def names_of_file(name: str) -> list[str]:
    """The places of a picture whose file name is known: beside the others, or in the folder of its archive."""
    return [name, *(f"{folder}/{name}" for folder in FOLDERS)]


def names_of_id(number: int) -> list[str]:
    """The places of a picture whose number is known; no number is in two of COCO's parts.

    Args:
        number: such as 42, for ``val2014/COCO_val2014_000000000042.jpg``.
    """
    parts = [(folder, f"COCO_{folder}_{number:012d}.jpg") for folder in FOLDERS if not folder.endswith("2017")]
    return [f"{folder}/{name}" for folder, name in parts] + [name for _, name in parts]
