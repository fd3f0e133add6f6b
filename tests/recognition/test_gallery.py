"""A gallery finds what brute force finds, keeps to its threshold, and refuses what it cannot compare."""

import re
from pathlib import Path

import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.metrics import verification
from cvjax.recognition import gallery as galleries
from cvjax.recognition.gallery import Embeddings, Gallery, search

MARK = "a network"


def units(count, features=16, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, features)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def crowd(people=6, pictures=3, noise=0.15, seed=0):
    """{name: embeddings} of people each of whom is near a direction of their own."""
    generator, centres = np.random.default_rng(seed), units(people, seed=seed)
    return {
        f"person {i}": Embeddings(np.float32(centres[i] + noise * generator.normal(size=(pictures, 16))), MARK)
        for i in range(people)
    }


@pytest.fixture
def gallery():
    return Gallery.empty(MARK, 16).enrol(crowd()).with_threshold(0.9)


def brute(vectors, entries):
    return np.sqrt(np.square(vectors[:, None].astype(np.float64) - entries).sum(axis=-1))


# --- search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 30, 500])
@pytest.mark.parametrize("order", ["random", "ever nearer"])
def test_search_is_brute_force(monkeypatch, count, order):
    monkeypatch.setattr(search, "BLOCK", 64)  # seven blocks
    monkeypatch.setattr(search, "QUERIES", 3)
    monkeypatch.setattr(search, "CROWDED", 1)
    entries, queries = units(430), units(7, seed=1)
    if order == "ever nearer":  # each block improves on all before it
        entries = entries[np.argsort(entries @ queries[0])]
    table = brute(queries, entries)
    indices, distances = search.nearest(queries, entries, count)
    assert indices.shape == (7, min(count, 430))
    np.testing.assert_array_equal(indices, np.argsort(table, axis=1, kind="stable")[:, :count])
    np.testing.assert_allclose(distances, np.take_along_axis(table, indices, axis=1), rtol=1e-12)


def test_near_copies_are_told_apart():
    """Float32 products of vectors that differ by 1e-5 are equal; their distances are not."""
    entries = np.repeat(units(1), 12, axis=0)
    entries[np.arange(12), np.arange(12)] += np.float32(1e-5) * np.arange(12)
    entries = entries[::-1].copy()
    indices, distances = search.nearest(units(1), entries, 3)
    assert indices.tolist() == [[11, 10, 9]] and distances[0, 0] == 0 < distances[0, 1] < distances[0, 2]


def test_nothing_is_asked_for():
    assert [found.shape for found in search.nearest(units(0), units(5), 3)] == [(0, 3), (0, 3)]


# --- verify and identify ------------------------------------------------------------------------------------------


def test_a_person_is_the_mean_of_their_pictures(gallery):
    probes = Embeddings(units(9, seed=5), MARK)
    means = np.stack([one.vectors.mean(axis=0) for one in crowd().values()])
    table = brute(probes.vectors, means / np.linalg.norm(means, axis=1, keepdims=True))
    found = gallery.identify(probes, count=6)
    np.testing.assert_array_equal(found.people, np.argsort(table, axis=1))
    np.testing.assert_allclose(found.distances, np.sort(table, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(found.known, table.min(axis=1) <= 0.9)
    answers = gallery.verify(probes, "person 2")
    np.testing.assert_allclose(answers.distances, table[:, 2], rtol=1e-5)
    np.testing.assert_array_equal(answers.same, table[:, 2] <= 0.9)


def test_or_the_nearest_of_their_pictures():
    people = crowd() | {"alone": Embeddings(units(1, seed=9), MARK)}
    gallery = Gallery.empty(MARK, 16, "nearest").enrol(people).with_threshold(0.9)
    probes = Embeddings(units(9, seed=5), MARK)
    table = np.stack([brute(probes.vectors, one.vectors).min(axis=1) for one in people.values()], axis=1)
    found = gallery.identify(probes, count=4)  # no person twice, though the first has three pictures
    np.testing.assert_array_equal(found.people, np.argsort(table, axis=1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(table, axis=1)[:, :4], rtol=1e-6)
    np.testing.assert_allclose(gallery.verify(probes, "alone").distances, table[:, 6], rtol=1e-6)


def test_strangers_are_none_of_these(gallery):
    known, strangers = crowd(noise=0.1), Embeddings(-crowd()["person 0"].vectors, MARK)
    assert gallery.name_pictures(strangers) == [None] * 3
    assert gallery.name_pictures(known["person 4"]) == ["person 4"] * 3
    at = gallery.identify(known["person 4"]).distances[0, 0]
    assert gallery.with_threshold(at).identify(known["person 4"]).known[0]  # at most tau
    assert not gallery.with_threshold(np.nextafter(at, 0)).identify(known["person 4"]).known[0]


def test_another_search_may_be_used(gallery):
    asked = []
    others = lambda queries, entries, count: asked.append(count) or search.nearest(queries, entries, count)  # noqa: E731
    probes = Embeddings(units(2, seed=5), MARK)
    np.testing.assert_array_equal(gallery.identify(probes, 2, others).people, gallery.identify(probes, 2).people)
    assert asked == [2]


def test_embeddings_are_compared_by_direction():
    assert np.allclose(np.linalg.norm(Embeddings(3 * units(4), MARK).vectors, axis=1), 1)


# --- who comes and goes -------------------------------------------------------------------------------------------


def test_people_come_and_go(gallery):
    probes = Embeddings(units(5, seed=3), MARK)
    without = gallery.remove("person 2")
    assert len(gallery.names) == 6 and without.names == tuple(f"person {i}" for i in (0, 1, 3, 4, 5))
    rest = {name: people for name, people in crowd().items() if name != "person 2"}
    again = Gallery.empty(MARK, 16).enrol(rest).with_threshold(0.9)
    for some, other in zip(without.identify(probes, 5), again.identify(probes, 5), strict=True):
        np.testing.assert_array_equal(some, other)
    back = without.enrol({"person 2": crowd()["person 2"]})
    assert back.name_pictures(crowd()["person 2"]) == ["person 2"] * 3


def test_more_pictures_of_a_person(gallery):
    further = {"person 1": Embeddings(units(2, seed=8), MARK)}
    with pytest.raises(UserError, match=r"two people under one name, 'person 1'.*--more"):
        gallery.enrol(further)
    more = gallery.enrol(further, more=True)
    assert len(more.names) == 6 and (more.people == 1).sum() == 5
    assert not np.allclose(*(one.verify(further["person 1"], "person 1").distances for one in (gallery, more)))


def test_names_are_compared_composed():
    gallery = Gallery.empty(MARK, 16).enrol({"Jose\u0301": Embeddings(units(1), MARK)})
    assert gallery.names == ("Jos\u00e9",) and gallery.find(" Jose\u0301") == 0
    with pytest.raises(UserError, match="two people under one name"):
        gallery.enrol({"Jos\u00e9": Embeddings(units(1, seed=1), MARK)})


# --- the threshold ------------------------------------------------------------------------------------------------


def test_threshold_has_the_wanted_rate_on_validation(gallery):
    others = crowd(people=30, pictures=4, noise=0.2, seed=7)
    vectors = np.concatenate([one.vectors for one in others.values()])
    labels = np.repeat(np.arange(30), 4)
    found, accepted = gallery.choose_threshold(Embeddings(vectors, MARK), labels, 0.01, enrolled=1)
    table = brute(vectors, vectors)[np.triu_indices(120, 1)]
    same = (labels[:, None] == labels)[np.triu_indices(120, 1)]
    assert 0.009 < (table[~same] <= found.threshold).mean() <= 0.01
    assert (table[same] <= found.threshold).mean() == accepted
    assert gallery.threshold == 0.9  # unchanged


@pytest.mark.parametrize("compare", ["mean", "nearest"])
def test_the_rate_holds_for_people_with_several_pictures_whose_identity_is_in_few_directions(compare):
    """A mean of five pictures is nearer to strangers than one picture is: noise averages out, identity is shared."""
    rng = np.random.default_rng(0)

    def pictures(people, each):
        identity = np.pad(rng.normal(size=(people, 1, 8)), [(0, 0), (0, 0), (0, 56)]) * 4
        return np.float32(identity + rng.normal(size=(people, each, 64)))

    enrolled = {f"person {i}": Embeddings(each, MARK) for i, each in enumerate(pictures(60, 5))}
    gallery = Gallery.empty(MARK, 64, compare).enrol(enrolled)
    others, strangers = (Embeddings(pictures(150, 10).reshape(-1, 64), MARK) for _ in range(2))
    labels = np.repeat(np.arange(150), 10)
    rates = {}
    for count in (None, 1):
        found, accepted = gallery.choose_threshold(others, labels, 0.01, count)
        rates[count] = np.mean([found.verify(strangers, name).same.mean() for name in found.names])
        assert accepted > 0.5
    assert gallery.usual_pictures == 5
    assert 0.005 < rates[None] < 0.015 and rates[1] > 1.8 * rates[None]


@pytest.mark.parametrize("compare", ["mean", "nearest"])
def test_groups_of_others_are_compared_as_people_enrolled(compare):
    vectors, labels = units(13, seed=3), np.array([0] * 6 + [1] * 3 + [2] * 3 + [3])
    gallery = Gallery.empty(MARK, 16, compare)
    distances, same = gallery._compare_others(vectors, labels, 2)
    assert len(distances) == 6 * 13 - 11 and same.sum() == 3 * 6 - 6 + 1 + 1  # 3, 1, 1 groups of two and one of one
    alone = brute(vectors, vectors)
    if compare == "nearest":
        assert np.isin(np.round(distances, 5), np.round(alone, 5)).all()
    lone, _ = Gallery.empty(MARK, 16, compare)._compare_others(vectors, labels, 1)
    np.testing.assert_allclose(np.sort(lone), np.sort(alone[np.triu_indices(13, 1)]), rtol=1e-5)


# --- one file -----------------------------------------------------------------------------------------------------


def test_a_saved_gallery_answers_the_same(gallery, tmp_path):
    path = tmp_path / "new" / "people.npz"
    named = gallery.enrol({"\u732b \U0001f600 O'Neil": Embeddings(units(1, seed=4), MARK)})
    named.save(path)
    back = galleries.load(path)
    assert (back.names, back.threshold, back.compare, back.fingerprint) == (named.names, 0.9, "mean", MARK)
    for some, other in zip(*(one.identify(Embeddings(units(3), MARK), 2) for one in (named, back)), strict=True):
        np.testing.assert_array_equal(some, other)
    assert [file.name for file in path.parent.iterdir()] == ["people.npz"]
    with np.load(path, allow_pickle=False) as archive:  # by NumPy alone
        assert archive["names"].tolist() == list(named.names) and archive["vectors"].dtype == np.float32
    gallery.remove("person 0").save(path)  # over the old one
    assert len(galleries.load(path).names) == 5


def test_an_empty_gallery_is_saved_too(tmp_path):
    Gallery.empty(MARK, 16).save(tmp_path / "people.npz")
    back = galleries.load(tmp_path / "people.npz")
    assert back.names == () and back.vectors.shape == (0, 16) and np.isnan(back.threshold)


def test_a_write_that_fails_leaves_the_old_file(gallery, tmp_path, monkeypatch):
    path = tmp_path / "people.npz"
    gallery.save(path)

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match="No space left"):
        gallery.remove("person 0").save(path)
    monkeypatch.undo()
    assert len(galleries.load(path).names) == 6


LETTERS = "person".encode("utf-32-le"), "qerson".encode("utf-32-le")


def resave(path, **changes):
    with np.load(path) as archive:
        arrays = {**archive, **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda path: path.unlink(), "No such file.*Did you mean 'people2.npz'"),
        (lambda path: path.write_text("Anna"), "not a gallery, or a damaged one"),
        (lambda path: path.write_bytes(path.read_bytes()[:-400]), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes().replace(*LETTERS)), "no .npz .* damaged one: Bad CRC"),
        (lambda path: np.savez(path, mean=np.ones(3)), "not a gallery: it has mean"),
        (lambda path: resave(path, version=9), "of version 9; this cvjax reads version 1"),
        (lambda path: resave(path, threshold=None), "not a gallery: it has compare, fing"),
        (lambda path: resave(path, names=np.array(["a"])), "contradicts itself"),
        (lambda path: resave(path, names=np.arange(6)), "contradicts itself"),
        (lambda path: resave(path, threshold=np.array([0.5, 0.6])), "contradicts itself"),
        (lambda path: resave(path, threshold=np.array("0.5")), "contradicts itself"),
        (lambda path: resave(path, vectors=np.float32(1)), "contradicts itself"),
        (lambda path: resave(path, vectors=np.full((18, 16), "a")), "contradicts itself"),
        (lambda path: resave(path, people=np.array(["0"] * 18)), "contradicts itself"),
        (lambda path: resave(path, compare=np.array("furthest")), "contradicts itself"),
        (lambda path: resave(path, names=np.array(["a"] * 6)), "contradicts itself"),
        (lambda path: resave(path, vectors=np.full((18, 16), np.nan, np.float32)), "contradicts itself"),
    ],
)
def test_files_that_are_no_gallery(gallery, tmp_path, spoil, message):
    gallery.save(tmp_path / "people.npz")
    gallery.save(tmp_path / "people2.npz")
    spoil(tmp_path / "people.npz")
    with pytest.raises(UserError, match=message):
        galleries.load(tmp_path / "people.npz")


# --- mistakes -----------------------------------------------------------------------------------------------------

PROBE = Embeddings(units(1), MARK)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda g: Embeddings(np.float32([[1, 0], [np.nan, 0]]), MARK), "Embedding 1 of 2 is not finite"),
        (lambda g: Embeddings(np.zeros((1, 2), np.float32), MARK), "Embedding 0 of 1 is zero"),
        (lambda g: g.identify(Embeddings(units(1), "another")), "of a network, these of another"),
        (lambda g: g.verify(Embeddings(units(1), "another"), "person 1"), "of a network, these of another"),
        (lambda g: g.enrol({"new": Embeddings(units(1), "another")}), "of a network, these of another"),
        (lambda g: g.identify(Embeddings(units(1, 8), MARK)), "have 16 numbers, these 8"),
        (lambda g: g.verify(PROBE, "persn 1"), "nobody of the name 'persn 1'.*Did you mean 'person 1'"),
        (lambda g: g.remove("Anna"), "nobody of the name 'Anna'.*Known: person 0"),
        (lambda g: Gallery.empty(MARK, 16).with_threshold(1.0).identify(PROBE), "Nobody is enrolled"),
        (lambda g: Gallery.empty(MARK, 16).enrol(crowd()).identify(PROBE), "no threshold yet"),
        (lambda g: g.with_threshold(np.nan), "from 0 to 2"),
        (lambda g: g.enrol({" \n": PROBE}), "is no name"),
        (lambda g: g.enrol({"a": PROBE, "a ": PROBE}), "two people under one name, 'a'"),
        (lambda g: g.enrol({"new": Embeddings(units(0), MARK)}), "no picture of 'new'"),
        (lambda g: g.choose_threshold(Embeddings(units(4), MARK), np.array([0, 0, 1, 1]), 0.01), "takes 100 examples"),
        (
            lambda g: g.choose_threshold(Embeddings(units(4), MARK), np.array([0, 0, 0, 0]), 0.01),
            "none is of two people",
        ),
        (
            lambda g: g.choose_threshold(Embeddings(np.ones((4, 16), np.float32), MARK), np.array([0, 0, 1, 1]), 0.3),
            "No threshold accepts at most 0.3",
        ),
    ],
)
def test_mistakes_are_said(gallery, call, message):
    with pytest.raises(UserError, match=message):
        call(gallery)


def test_a_large_gallery_does_not_list_all_names():
    names = tuple(f"person {i}" for i in range(20_000))
    gallery = Gallery(MARK, names, units(1).repeat(20_000, axis=0), np.arange(20_000, dtype=np.int32))
    with pytest.raises(UserError, match=r"'person 31x'.*Did you mean 'person 31\d?'. It has 20,000 names.$"):
        gallery.find("person 31x")


def test_verification_and_the_gallery_measure_the_same_distance():
    vectors = units(4)
    pairs = verification.pair_distances(vectors, np.array([0, 1]), np.array([2, 3]))
    gallery = Gallery.empty(MARK, 16).enrol({"a": Embeddings(vectors[:1], MARK)}).with_threshold(1.0)
    assert gallery.verify(Embeddings(vectors[2:3], MARK), "a").distances[0] == pytest.approx(pairs[0], rel=1e-6)


def test_the_snippet_of_the_readme_finds_anna():
    page = (Path(__file__).parents[2] / "README.md").read_text()
    (snippet,) = re.findall(r"^## Recognise$.*?^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    made = {}
    exec(snippet, made)
    assert made["names"] == ["Anna"] and made["figures"]["rank1"] < 0.1  # of noise
