"""Drawn boxes touch the pixels that they should, and no box, label or image breaks them."""

import numpy as np

from cvjax.ops.drawing import colour, draw_boxes

NAMES = ["cat", "dog"]


def test_the_frame_runs_along_the_inner_border():
    image = np.zeros((120, 100, 3), np.float32)
    drawn = draw_boxes(image, np.array([[20.0, 30, 60, 90]]), np.array([1]), NAMES)
    ink = np.round(255 * np.array(colour(1))) / 255
    painted = np.abs(drawn - ink).max(-1) < 1e-3
    frame = np.zeros((120, 100), bool)
    frame[30:90, 20:60] = True
    frame[31:89, 21:59] = False
    assert painted[frame].all()
    painted[:30] = False  # the strip with the name lies above
    assert not painted[~frame].any() and not image.any()
    assert drawn[:30].any() and drawn.dtype == np.float32 and 0 <= drawn.min() <= drawn.max() <= 1


def test_names_and_scores_are_written_and_the_first_box_lies_on_top():
    image, box = np.full((80, 80, 3), 0.5, np.float32), np.array([[10.0, 30, 70, 70], [10, 30, 70, 70]])
    plain = draw_boxes(image, box[:1], np.array([0]), NAMES)
    scored = draw_boxes(image, box[:1], np.array([0]), NAMES, np.array([0.87]))
    other = draw_boxes(image, box[:1], np.array([0]), ["cot", "dog"])
    assert (plain != scored).any() and (plain != other).any()
    both = draw_boxes(image, box, np.array([0, 1]), NAMES)
    np.testing.assert_array_equal(both[30:], plain[30:])


def test_classes_look_different():
    colours = np.array([colour(label) for label in range(20)])
    distance = np.abs(colours[:, None] - colours).max(-1) + np.eye(20)
    assert distance.min() > 0.08 and distance[:8, :8].min() > 0.15


def test_odd_boxes_labels_and_images():
    odd = np.array([[-50, -50, 500, 500], [5, 5, 5, 9], [np.nan] * 4, [9, 9, 2, 2], [1e30, 0, 2e30, 5], [-9, 0, -2, 5]])
    labels = np.array([7, 0, 0, 0, -1, 0])
    grey = draw_boxes(np.full((20, 30, 1), np.nan), odd, labels, NAMES)
    assert grey.shape == (20, 30, 3)
    for box in odd[1:]:
        np.testing.assert_array_equal(draw_boxes(np.zeros((20, 30, 1)), box[None], np.array([0]), NAMES), 0)
    nothing = draw_boxes(np.full((20, 30, 3), 0.4), np.zeros((0, 4)), np.zeros(0, int), NAMES)
    np.testing.assert_allclose(nothing, 0.4, atol=0.5 / 255)  # eight bits


def test_small_images_are_enlarged():
    drawn = draw_boxes(np.zeros((16, 16, 3)), np.array([[4.0, 12, 8, 15]]), np.array([0]), NAMES, scale=10)
    assert drawn.shape == (160, 160, 3) and drawn[120, 40].any() and drawn[149, 79].any() and not drawn[125, 45].any()


def test_names_in_other_scripts_are_drawn_or_else_the_number():
    def written(name):
        return draw_boxes(np.zeros((60, 200, 3)), np.array([[5.0, 30, 150, 55]]), np.array([0]), [name])

    words = ["chat noir", "\u03b3\u03ac\u03c4\u03b1", "\u043a\u043e\u0442", "ko\u010dka", "koCka"]
    pictures = [written(word) for word in words]
    assert all((one != other).any() for index, one in enumerate(pictures) for other in pictures[:index])
    for unknown in ("\u732b", "\U0001f408", "caf\udce9", "a\nb"):
        np.testing.assert_array_equal(written(unknown), written("0"))
