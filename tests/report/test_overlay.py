from PIL import Image

from clasp_calib.report.overlay import MARGIN, MEDOID, PANEL, PIVOT, Panel, draw_overlay


def test_cells_are_tinted_by_the_reason_they_were_kept(tmp_path):
    """A grey picture of 2 x 3 tokens: blue, red and darkened cells, where they belong."""
    panels = [Panel("first", [0], [4]), Panel("second", [], [5])]
    draw_overlay(Image.new("L", (60, 40), 128), (2, 3), panels, tmp_path / "a" / "kept.png")
    cell = PANEL // 3
    with Image.open(tmp_path / "a" / "kept.png") as sheet:

        def at(panel, token):
            row, column = divmod(token, 3)
            left = MARGIN + panel * (3 * cell + MARGIN)
            return sheet.getpixel((left + column * cell + cell // 2, MARGIN + row * cell + cell // 2))

        def tinted(colour):
            return tuple(int(128 + 0.45 * (part - 128)) for part in colour)

        assert at(0, 0) == tinted(PIVOT)
        assert at(0, 4) == at(1, 5) == tinted(MEDOID)
        dark = {at(panel, token) for panel in (0, 1) for token in (1, 2, 3)}
        assert dark == {(44, 44, 44)}
