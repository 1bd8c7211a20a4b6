import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.common.scripts import ended


def refused() -> None:
    raise InputError("no such thing;\ngive another")


def unreadable() -> None:
    raise PermissionError(13, "Permission denied", "somewhere")


def test_what_a_user_can_mend_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(refused) == 2
    assert capsys.readouterr().err == "error: no such thing; give another\n"
    assert ended(unreadable) == 2
    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: 'somewhere'\n"
    assert ended(lambda: None) == 0


def test_other_errors_stay_tracebacks() -> None:
    with pytest.raises(ZeroDivisionError):
        ended(lambda: print(1 / 0))
