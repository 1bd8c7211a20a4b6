"""Visual tokens of requests, summed up by task."""

import json

from clasp_calib.harness.token_record import TokenRecord, TokensOfRequest


def test_means_are_of_each_task(tmp_path, capsys):
    record = TokenRecord({"model": "reference", "method": "clasp"})
    for doc, (label, kept) in enumerate([("text", 60.0), ("text", 40.0), ("scene", 50.0)]):
        record.requests.append(TokensOfRequest("gqa", doc, "generate_until", 0, label, 576, kept, 3, 0.5))
    record.requests.append(TokensOfRequest("arc", 0, "loglikelihood", 1, None, 0, 0.0))
    record.say()
    told = json.loads(record.write(tmp_path / "out").read_text())
    assert told["tasks"] == {
        "gqa": {"requests": 3, "before": 576, "kept": 50, "classes": {"text": 2, "scene": 1}},
        "arc": {"requests": 1, "before": 0, "kept": 0},
    }
    assert (told["model"], told["method"]) == ("reference", "clasp")
    assert [request["class"] for request in told["requests"]] == ["text", "text", "scene", None]
    assert "gqa: 3 requests, 576.0 visual tokens, 50.0 of them" in capsys.readouterr().err
