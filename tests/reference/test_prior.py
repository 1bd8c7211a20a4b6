from clasp_calib.reference.prior import prior_accuracy


def test_guessing_is_far_from_knowing_but_not_nothing() -> None:
    accuracy = prior_accuracy("test", 40, training=800)
    assert 0.1 < accuracy["macro"] < 0.5
    assert accuracy["object"] < 0.6


def test_more_training_scenes_do_not_change_the_questions_asked() -> None:
    assert set(prior_accuracy("test", 5, 50)) == set(prior_accuracy("test", 5, 100))
