"""What is drawn touches the pixels that it should, and no box, mask, joint, label or image breaks it."""

import numpy as np

from cvjax.ops.drawing import colour, draw_boxes, draw_masks, draw_skeletons

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


def test_boxes_may_have_colours_of_their_own():
    drawn = draw_boxes(
        np.zeros((60, 60, 3)), np.array([[5.0, 30, 50, 55]]), np.array([1]), NAMES, colours=np.array([4])
    )
    np.testing.assert_allclose(drawn[54, 20], colour(4), atol=0.5 / 255)


def test_masks_are_translucent_inside_of_an_outline():
    image, mask = np.full((40, 50, 1), 0.5, np.float32), np.zeros((40, 50), bool)
    mask[10:30, 10:40] = True
    mask[15:25, 20:30] = False  # a hole, which has an outline too
    drawn, ink = draw_masks(image, [mask], opacity=0.4), np.array(colour(0))
    level = 0.5 * 0.6 + 0.4 * ink
    np.testing.assert_allclose(drawn[12, 15], level, atol=1.5 / 255)  # rounded to bytes twice
    np.testing.assert_allclose(drawn[10, 20], ink, atol=0.5 / 255)
    np.testing.assert_allclose(drawn[14, 25], ink, atol=0.5 / 255)  # above the hole
    np.testing.assert_allclose(drawn[~mask], 0.5, atol=0.5 / 255)
    assert (image == 0.5).all()


def test_each_mask_has_a_colour_and_the_first_lies_on_top():
    image, mask = np.zeros((30, 30, 3)), np.ones((10, 10), bool)
    both = draw_masks(image, [mask, mask], [(5, 5), (5, 8)], opacity=1.0)
    np.testing.assert_allclose(both[10, 10], colour(0), atol=0.5 / 255)
    np.testing.assert_allclose(both[10, 17], colour(1), atol=0.5 / 255)
    other = draw_masks(image, [mask], [(5, 5)], np.array([7]), opacity=1.0)
    np.testing.assert_allclose(other[10, 10], colour(7), atol=0.5 / 255)


def test_parts_are_drawn_where_they_belong():
    part = np.random.default_rng(0).uniform(size=(12, 9)) < 0.7
    whole = np.zeros((30, 20), bool)
    whole[18:, 11:] = part
    image = np.random.default_rng(1).uniform(size=(30, 20, 3))
    np.testing.assert_array_equal(draw_masks(image, [part], [(18, 11)]), draw_masks(image, [whole]))
    nothing = draw_masks(image, [np.zeros((0, 0), bool), np.zeros((30, 20), bool)], [(0, 0), (0, 0)])
    np.testing.assert_allclose(nothing, image, atol=0.51 / 255)


def test_hidden_joints_are_rings_and_unmarked_ones_are_not_drawn():
    joints = np.array([[[10.5, 10.5], [40.5, 10.5], [40.5, 30.5]]])
    drawn = draw_skeletons(np.zeros((50, 60, 3)), joints, np.array([[2, 1, 0]]), [(0, 1), (1, 2)])
    ink = np.array(colour(0))
    for place in ((10, 10), (10, 12), (10, 42)):  # a disc, its edge, the ring
        np.testing.assert_allclose(drawn[place], ink, atol=0.5 / 255)
    np.testing.assert_allclose(drawn[10, 25], ink, atol=0.1)  # the limb is smooth
    np.testing.assert_array_equal(drawn[10, 40], 1)  # the ring's middle
    assert not drawn[20:].any()  # neither the third joint nor a limb to it


def test_skeletons_are_enlarged_and_odd_joints_left_out():
    odd = np.array([[[np.nan, 3.0], [1e30, 5.0], [5.0, 5.0]], [[6.0, 6.0], [3.0, 6.0], [-500.0, 5.0]]])
    drawn = draw_skeletons(np.zeros((10, 10, 3)), odd, np.full((2, 3), 2), [(0, 1), (1, 2)], np.array([3, 5]), scale=30)
    assert drawn.shape == (300, 300, 3)
    np.testing.assert_allclose(drawn[150, 150], colour(3), atol=0.5 / 255)
    np.testing.assert_allclose(drawn[180, 90], colour(5), atol=0.5 / 255)
    assert not draw_skeletons(np.zeros((10, 10, 3)), odd[:0], np.zeros((0, 3), int)).any()
