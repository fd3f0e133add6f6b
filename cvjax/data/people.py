"""The joints of people as COCO numbers them, and how well people agree on where each of them is."""

JOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)  # left and right are the person's own

# Pairs that a mirror exchanges: the left one of each and the right one.
EXCHANGE = tuple((left, left + 1) for left in range(1, len(JOINTS), 2))

# Pairs of joints that lines connect when a skeleton is drawn, in COCO's order.
SKELETON = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)

# OKS is the mean of exp(-d^2 / (2 s^2 k^2)) over the labelled joints, s^2 the object's area, d the distance in pixels,
# and k twice the standard deviation with which annotators placed the joint, in shares of s. These are the deviations,
# one for each of `JOINTS`: Ronchi & Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", ICCV
# 2017; the values are COCO's.
SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)

# The visibility of a joint: not labelled, or outside of the image; labelled but hidden; visible.
ABSENT, HIDDEN, VISIBLE = 0, 1, 2
