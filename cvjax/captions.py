"""What each measure and each picture of a run shows, in a sentence. A new one gets its line here."""

MEASURES = {
    "accuracy": "share of the images whose most probable class is right",
    "active_units": "latents that vary with the image",
    "ap": "COCO's average precision, over overlaps of 0.5 to 0.95 and all classes",
    "ap50": "COCO's average precision at an overlap of 0.5",
    "ap75": "COCO's average precision at an overlap of 0.75",
    "ap_large": "COCO's average precision of objects above 96 x 96 pixels",
    "ap_medium": "COCO's average precision of objects of 32 x 32 to 96 x 96 pixels",
    "ap_small": "COCO's average precision of objects below 32 x 32 pixels",
    "ar_1": "COCO's average recall with one detection per image",
    "ar_10": "COCO's average recall with ten detections per image",
    "ar_100": "COCO's average recall with a hundred detections per image",
    "ar_large": "COCO's average recall of objects above 96 x 96 pixels",
    "ar_medium": "COCO's average recall of objects of 32 x 32 to 96 x 96 pixels",
    "ar_small": "COCO's average recall of objects below 32 x 32 pixels",
    "bits": "bits per dimension of the batch",
    "bits_per_dim": "negative log-likelihood of held-out images, in bits per pixel and channel",
    "boundary_f": "F-measure of the classes' boundaries, within 0.75 % of the diagonal",
    "calibration_error": "mean difference between confidence and accuracy",
    "class_accuracy": "share of the samples that the judge takes for the class they were drawn of",
    "classes_seen": "classes that have at least 1 % of the samples",
    "denoising_error": "mean squared error of the predicted noise, over ten levels of noise",
    "error_over_gaussian": "denoising error over that of the best denoiser of Gaussian codes",
    "error_over_pca": "reconstruction error over that of PCA with codes of the same size",
    "fid": "Fréchet distance between the features of samples and of held-out images; 0 is equal",
    "fid_over_control": "FID over that of samples of one Gaussian per class; below 1 is better than those",
    "fid_over_noise": "FID over that of uniform noise",
    "fid_over_raw": "FID of the averaged network over that of the latest one",
    "gradient_error": "distance of the mean gradient norm from 1, which WGAN-GP aims at",
    "gradient_norm": "norm of the critic's gradient between real images and samples",
    "gram_over_content": "style loss of the pictures over that of the images that they were made of",
    "inception_score": "exp of the mean divergence between the judge's classes of one sample and of all",
    "instance_f1": "F1 of connected components as objects, found from an IoU of 0.5",
    "iou": "overlap of the predicted boxes, or of the pixels of each class, with the true ones",
    "iwae_bits_per_dim": "the importance-weighted bound of the negative log-likelihood, in bits per dimension",
    "iwae_gain": "bits per dimension by which the importance-weighted bound is tighter",
    "jacobian_norm": "squared norm of the encoder's Jacobian",
    "jpeg_gain": "size of JPEG files over that of the codes, at equal error",
    "kid": "kernel distance between the features of samples and of held-out images; about 0 is equal",
    "kl": "divergence of the codes from the prior, in nats",
    "log_likelihood": "log-likelihood of held-out images, in nats",
    "loss": "training losses, or the loss of the finished pictures",
    "lpips_between_styles": "LPIPS between the same image in two styles",
    "lpips_content": "LPIPS of the pictures to the images that they were made of",
    "lpips_over_style": "LPIPS of the pictures to the images that they were made of, over that of the style",
    "lpips_style": "LPIPS of the style to the images: what pictures with nothing of them have",
    "map_boxed": "mean average precision of the classes that were trained with boxes",
    "map_unboxed": "mean average precision of the classes that never had a box",
    "map_voc": "VOC's mean average precision, by the area under the curve",
    "map_voc07": "VOC's mean average precision, by the eleven points of 2007",
    "mean_accuracy": "share of the pixels of each class that are found, averaged over the classes",
    "mean_activation": "mean of the codes",
    "mean_dice": "Dice coefficient of the pixels of each class, averaged over the classes",
    "mean_iou": "intersection over union of the pixels of each class, averaged over the classes",
    "memorisation": "nearest distance over that of held-out images; 0 is copied, 1 as new as unseen images",
    "nearest_distance": "mean distance of samples to their nearest training image; 0 is copied",
    "nll": "negative log-likelihood of the true class, in nats",
    "own_style": "share of the pictures whose Gram matrices are nearest to those of their own style",
    "norm": "norms of gradients",
    "pixel_accuracy": "share of the pixels whose class is right",
    "positive_anchors": "anchors per image that are matched to an object",
    "precision": "share of the samples whose features lie among those of held-out images",
    "precision_at_10": "share of the ten nearest codes that are of the same class",
    "precision_over_pixels": "that share, less the one that a search by pixels reaches",
    "probability": "the discriminator's probability that an image is real",
    "psnr_denoised": "peak signal-to-noise ratio of denoised images, in dB",
    "psnr_gain": "dB by which denoising improves the noisy images",
    "psnr_median": "peak signal-to-noise ratio of a median filter, in dB",
    "psnr_noisy": "peak signal-to-noise ratio of the noisy images, in dB",
    "psnr_nonlocal_means": "peak signal-to-noise ratio of non-local means, in dB",
    "psnr_over_nonlocal_means": "dB above non-local means, a classical denoiser",
    "random_sign_accuracy": "accuracy under random noise of the size of the attack",
    "raw_fid": "FID of samples of the latest network instead of the averaged one",
    "recall": "share of the held-out images whose features lie among those of samples",
    "robust_accuracy": "accuracy on images that were attacked, by the largest change of a pixel",
    "sample_bits_per_dim": "bits per dimension of the model's own samples",
    "sample_gap": "difference between the bits per dimension of samples and of held-out images",
    "score": "mean output of the critic",
    "separated": "share of the objects that touch another one and are found",
    "share": "shares of the windows",
    "smallest_class": "share of the class that the judge sees least among samples",
    "sparseness": "Hoyer's sparseness of the codes: 0 is even, 1 is a single active unit",
    "squared_error": "mean squared error of reconstructions, per pixel",
    "subspace_angle": "largest angle between the subspaces of the autoencoder and of PCA, in radians",
    "sure_share": "share of the samples that the judge is sure of",
    "top1": "share of the images whose most probable class is right",
    "top5": "share of the images whose class is among the five most probable",
    "voc07": "VOC's average precision of each class, by the eleven points of 2007",
    "weighted_iou": "intersection over union of the classes, weighted by their pixels",
}
PICTURES = {
    "adversarial": "Attacked images with what the classifier sees in them, and the change, magnified.",
    "augmented": "Training images after augmentation.",
    "chain": "From noise to a sample, step by step.",
    "classes": "Samples of each class.",
    "completions": "Held-out images, of which the lower part is drawn by the model.",
    "confusion": "How often each true class (rows) is taken for each class (columns).",
    "detections": "Left of each pair: the true boxes. Right: detections with their scores in per cent.",
    "forming": "Pictures as they form, after more and more evaluations of their loss.",
    "edits": "Images, partly noised and denoised again.",
    "gaussian_samples": "Decoded samples of a Gaussian that was fitted to the codes, for comparison.",
    "hardest": "The images with the highest loss, framed in red where the class is wrong.",
    "interpolations": "From left to right: between two points of the latent space.",
    "latent_map": "The codes of held-out images on a plane, coloured by class.",
    "nearest": "Each sample beside its nearest training image.",
    "nearest_reconstructions": "Each decoded sample beside the nearest reconstruction of a training image.",
    "neighbours": "Held-out images, and the images with the nearest codes.",
    "rate_distortion": "Size and error of the codes at different precisions, beside JPEG.",
    "raw_samples": "Samples of the latest network instead of the averaged one.",
    "real": "Real images, for comparison.",
    "reconstructions": "Held-out images, each beside its reconstruction.",
    "samples": "Samples of the model, not selected.",
    "denoised": "Held-out images, noisy and denoised.",
    "denoising": "Held-out images, noisy and denoised.",
    "segmentations": "Held-out images, their true classes, those found, and the errors in red.",
    "styles": "The pictures that the styles were learnt from.",
    "stylised": "Images, each beside its style and the painted picture, or beside itself in every style.",
    "traversals": "Each row moves along one latent, all else equal.",
}
FIRST = ("samples", "detections", "segmentations", "stylised")  # pictures that a page begins with


def describe_measure(name: str) -> str:
    """Returns what a measure shows: "accuracy/7", of class 7, and "robust_accuracy_0_2", at 0.2, have their group's."""
    return _find(MEASURES, name)


def describe_picture(name: str) -> str:
    """Returns what a picture shows, by the name of its folder."""
    return _find(PICTURES, name)


def _find(captions: dict[str, str], name: str) -> str:
    """Looks up a name, without its class after the slash or its number at the end if necessary."""
    for short in (name, name.rpartition("/")[2], name.partition("/")[0]):
        if short in captions:
            return captions[short]
        stem = short.rstrip("0123456789_")
        if stem in captions:
            return captions[stem]
    return ""
