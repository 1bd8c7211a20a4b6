"""What the tasks of the embedded benchmark ask, show and score."""


def shown(doc):
    return [doc["image"]]


def shown_wrong(doc):
    return [doc["image"]] if doc["id"].endswith("0-object") else [{"array": [0.0], "sampling_rate": 16000}]


def asked(doc, around=None):
    around = around or {}
    return around.get("pre_prompt", "") + doc["question"] + around.get("post_prompt", "")


def exact(doc, answers):
    return {"exact": float(answers[0] == doc["answer"])}


def offered(doc):
    return sorted({doc["answer"], "yes", "no", "red", "two"})


def right(doc):
    return offered(doc).index(doc["answer"])


def asked_again(doc, lmms_eval_specific_kwargs=None, previous_output=None, round_idx=None, previous_round_info=None):
    if round_idx is None:
        return asked(doc, lmms_eval_specific_kwargs)
    assert previous_round_info == (None if round_idx == 1 else {"round": round_idx - 1})
    if round_idx == 2:
        return None, None, True, previous_output, None
    return [doc["image"]], asked(doc), False, previous_output, {"round": round_idx}


def exact_twice(doc, answers):
    first, second = answers[0]
    return {"exact": float(first == second == doc["answer"])}
