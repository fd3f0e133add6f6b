"""Figures of robustness on arrays whose values are plain to see."""

import numpy as np
import pytest

from cvjax.metrics import robustness


def test_names_have_no_dots():
    assert robustness.name_at("robust_accuracy", 0.1) == "robust_accuracy_0_1"
    assert robustness.name_at("robust_accuracy", 2 / 255) == "robust_accuracy_0_00784"


def test_accuracies_are_shares_at_each_epsilon():
    right = np.array([[True, False], [True, True], [True, False], [False, False]])
    assert robustness.accuracies("robust_accuracy", right, (0.1, 0.2)) == {
        "robust_accuracy_0_1": 0.75,
        "robust_accuracy_0_2": 0.25,
    }


def test_a_curve_counts_what_is_further_away():
    distances = np.array([0.0, 0.5, 1.0, np.inf])
    np.testing.assert_array_equal(robustness.accuracy_curve(distances, np.array([0.0, 0.5, 2.0])), [0.75, 0.5, 0.25])


def test_perturbations_are_measured_over_those_that_succeed():
    fooled, distances = np.array([True, True, True, False]), np.array([1.0, 2.0, 6.0, 0.1])
    found = robustness.perturbation_figures("szegedy", fooled, distances, pixels=9)
    assert found["success/szegedy"] == 0.75 and found["rms/szegedy"] == pytest.approx(1.0)
    assert found["norm/szegedy"] == pytest.approx(4.0)  # the failure counts as infinitely far
    nothing = robustness.perturbation_figures("x", np.zeros(2, bool), np.ones(2), pixels=9)
    assert nothing == {"success/x": 0, "rms/x": -1, "norm/x": -1}


def test_patches_are_measured_over_area_and_angle_on_other_classes():
    outcomes = np.zeros((3, 2, 2), bool)
    outcomes[0, 1] = True
    outcomes[1, 1, 1] = True
    outcomes[2] = True  # is of the target's class
    found = robustness.patch_figures({"patch": outcomes}, np.array([True, True, False]), (0.1, 0.2), (0.0, 0.4))
    assert found == {
        "patch_success_0_1": 0,
        "patch_success_0_2": 0.75,
        "patch_turned_0": 0.25,
        "patch_turned_0_4": 0.5,
    }
