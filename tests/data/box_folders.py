"""Writes one small set of images with boxes as COCO, Pascal VOC and YOLO write it."""

import json

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog")


def example(index):
    """An image's size and its boxes: a class and whole x1, y1, x2, y2, far edges exclusive."""
    generator = np.random.default_rng(index)
    height, width = 40 + 8 * (index % 3), 64
    boxes = []
    for _ in range(index % 4):
        x1, y1 = generator.integers(0, (width - 12, height - 12))
        x2, y2 = generator.integers((x1 + 4, y1 + 4), (width + 1, height + 1))
        boxes.append((CLASSES[int(generator.integers(2))], int(x1), int(y1), int(x2), int(y2)))
    return generator.integers(0, 256, (height, width, 3), np.uint8), boxes


def write(root, kind, places=("",), count=12):
    """Writes `count` images into each place, such as "train", with their boxes beside them."""
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
        examples = {f"{index}.png": example(index) for index in range(count)}
        for name, (pixels, _) in examples.items():
            Image.fromarray(pixels).save(root / place / name)
        {"COCO": write_coco, "VOC": write_voc, "YOLO": write_yolo}[kind](root / place, examples)
    return root


def write_coco(root, examples):
    """Writes `boxes.json`, an annotation per line."""
    images, annotations = [], []
    for key, (name, (pixels, boxes)) in enumerate(examples.items()):
        images.append(dict(id=key, file_name=name, height=pixels.shape[0], width=pixels.shape[1]))
        for label, x1, y1, x2, y2 in boxes:
            box, category = [x1, y1, x2 - x1, y2 - y1], 3 + 4 * CLASSES.index(label)
            annotations.append(dict(id=len(annotations), image_id=key, category_id=category, bbox=box, iscrowd=0))
    categories = [dict(id=3 + 4 * label, name=name) for label, name in enumerate(CLASSES)]
    lists = dict(images=images, categories=categories, annotations=annotations)
    parts = [f'"{name}": [\n' + ",\n".join(map(json.dumps, entries)) + "\n]" for name, entries in lists.items()]
    (root / "boxes.json").write_text("{" + ",\n".join(parts) + "}")


def write_voc(root, examples):
    """Writes an xml file for each image; pixels count from 1, the far edges included."""
    for name, (pixels, boxes) in examples.items():
        height, width = pixels.shape[:2]
        objects = "".join(
            f"<object>\n<name>{label}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
            for label, x1, y1, x2, y2 in boxes
        )
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        text = f"<annotation>\n<filename>{name}</filename>\n{size}{objects}</annotation>\n"
        (root / name).with_suffix(".xml").write_text(text)


def write_yolo(root, examples):
    """Writes a txt file for each image, and the names in data.yaml."""
    for name, (pixels, boxes) in examples.items():
        height, width = pixels.shape[:2]
        rows = [
            f"{CLASSES.index(label)} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} "
            f"{(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"
            for label, x1, y1, x2, y2 in boxes
        ]
        (root / name).with_suffix(".txt").write_text("".join(rows))
    (root / "data.yaml").write_text(f"names: {list(CLASSES)}\n")
