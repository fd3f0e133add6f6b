"""Enrols people by their pictures, a folder of each, so that `python -m cvjax.apply` names the faces in new pictures.

python -m cvjax.recognition.gallery enrol --run=runs/x --gallery=people.npz --input=FOLDER        FOLDER/Anna/1.jpg, ...
python -m cvjax.recognition.gallery enrol --run=runs/x --gallery=people.npz --input=a.jpg --name=Anna       one picture
python -m cvjax.recognition.gallery threshold --run=runs/x --gallery=people.npz --input=OTHERS --rate=0.001
python -m cvjax.recognition.gallery verify --run=runs/x --gallery=people.npz --input=door.jpg --name=Anna
python -m cvjax.recognition.gallery remove --gallery=people.npz --name=Anna
python -m cvjax.recognition.gallery list --gallery=people.npz
python -m cvjax.apply --run=runs/x --gallery=people.npz --input=NEW --output=named

The run is of a system that makes embeddings, and nothing is trained. The threshold, the largest distance of pictures of
one person, is chosen by a folder of other people: some pictures of each stand for somebody enrolled, as many as people
here usually have, and at most the share --rate of the others' pictures is taken for that person's. So enrol first, and
choose again when people have many more pictures. Or it is given as --threshold. A picture shows one face, cut out as in
the run's data. Pictures that cannot be read are left out and listed at the end.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cvjax import command, runs
from cvjax.data import folder, splits
from cvjax.data.sources import readable
from cvjax.display import doing
from cvjax.errors import UserError, number_of, suggest_beside
from cvjax.programs.naming import Embedder, any_embedding
from cvjax.programs.outputs import LeftOut
from cvjax.recognition import gallery as galleries
from cvjax.recognition.gallery import Embeddings, Gallery

ACTIONS = ("enrol", "threshold", "verify", "remove", "list")
TAKEN = {  # flags that an action takes beside --gallery, and of these the ones that it needs
    "enrol": ({"run", "step", "batch", "input", "name", "more", "compare"}, {"run", "input"}),
    "threshold": ({"run", "step", "batch", "input", "rate", "threshold"}, set()),
    "verify": ({"run", "step", "batch", "input", "name"}, {"run", "input", "name"}),
    "remove": ({"name"}, {"name"}),
    "list": (set(), set()),
}
WRITING = ("enrol", "threshold", "remove")
RATE = 0.001


# --- the command line ---------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = command.Parser(prog="python -m cvjax.recognition.gallery", description=__doc__, formatter_class=formatter)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--gallery", type=Path, required=True, help="the file of the people, such as people.npz")
    parser.add_argument("--run", type=Path, help="the folder of the run that makes the embeddings")
    parser.add_argument("--step", type=int, help="the checkpoint's step; by default the latest")
    parser.add_argument("--batch", type=int, help="batch size, 16 by default")
    parser.add_argument("--input", type=Path, help="a picture, a folder of them, or one with a folder for each person")
    parser.add_argument("--name", help="of the person in all pictures of --input")
    parser.add_argument("--more", action="store_true", default=None, help="add pictures of people enrolled already")
    parser.add_argument("--compare", choices=("mean", "nearest"), help="of a new gallery: with the mean of a person's")
    parser.add_argument("--rate", type=float, help=f"wanted false accept rate of pairs, {RATE} by default")
    parser.add_argument("--threshold", type=float, help="a threshold of one's own, from 0 to 2")
    arguments = parser.parse_args(argv)
    check_flags(arguments)
    for name in ("gallery", "run", "input"):
        setattr(arguments, name, getattr(arguments, name) and getattr(arguments, name).expanduser())
    if arguments.input is not None:
        try:
            arguments.input.stat()
        except OSError as error:
            nearest = suggest_beside(arguments.input)
            raise UserError(f"--input={readable(arguments.input)}: {error.strerror}. {nearest}".rstrip()) from error
    if arguments.action in WRITING:
        runs.make_folder(arguments.gallery.parent, "--gallery")
    {"enrol": enrol, "threshold": choose, "verify": verify, "remove": remove, "list": show}[arguments.action](arguments)


def check_flags(arguments: argparse.Namespace) -> None:
    """Raises a UserError if a flag is missing, is not for the action, or is out of its range."""
    taken, needed = TAKEN[arguments.action]
    given = {name for name, value in vars(arguments).items() if value is not None} - {"action", "gallery"}
    for name in sorted(given - taken):
        takes = ", ".join(f"--{flag}" for flag in sorted(taken)) or "only --gallery"
        raise UserError(f"--{name} is not for {arguments.action}, which takes {takes}.")
    if arguments.action == "threshold" and "threshold" not in given:
        needed = {"run", "input"}
    elif arguments.action == "threshold" and len(given) > 1:
        raise UserError("--threshold is a threshold of one's own; leave out what chooses another.")
    for name in sorted(needed - given):
        raise UserError(f"{arguments.action} needs --{name}.")
    if arguments.batch is not None and arguments.batch < 1:
        raise UserError(f"--batch={arguments.batch}: must be at least 1.")
    if arguments.rate is not None and not 0 < arguments.rate < 1:
        raise UserError(f"--rate={arguments.rate:g}: the share of the pairs of two people is above 0 and below 1.")


def enrol(arguments: argparse.Namespace) -> None:
    """Adds people to a gallery, which is made if there is none, and says who looks like whom."""
    by_person, faults = list_people(arguments.input, arguments.name)
    there = galleries.load(arguments.gallery) if arguments.gallery.exists() else None
    if there is not None and arguments.compare not in (None, there.compare):
        raise UserError(f"--compare={arguments.compare} is for a new gallery; this one compares by {there.compare!r}.")
    if there is not None and not arguments.more:
        marks = dict.fromkeys(by_person, any_embedding(there))
        there.enrol(marks)  # a name that is taken is found before anything compiles
    embedder = Embedder(arguments.run, arguments.step, arguments.batch or 16)
    if there is not None:
        there.check(embedder.fingerprint)
    people, files = {}, {}
    read, embeddings, unread = embed(embedder, [file for files in by_person.values() for file in files])
    faults += unread
    places = {file: place for place, file in enumerate(read)}
    for name, members in by_person.items():
        files[name] = [file for file in members if file in places]
        if files[name]:
            rows = [places[file] for file in files[name]]
            people[name] = Embeddings(embeddings.vectors[rows], embeddings.fingerprint)
        else:
            faults.append(f"{name} has no picture that can be read and is not enrolled")
    if there is None:
        there = Gallery.empty(embedder.fingerprint, embeddings.vectors.shape[1], arguments.compare or "mean")
    found = there.enrol(people, more=bool(arguments.more))
    found.save(arguments.gallery)
    count = f"{number_of(len(people), 'name')} with {number_of(len(read), 'picture')}"
    print(f"{count} enrolled; {readable(arguments.gallery)} has {number_of(len(found.names), 'name')} now.")
    if np.isnan(found.threshold):
        print(f"It has no threshold yet; `threshold` chooses one by pictures of other people, {RATE:g} by default.")
    else:
        print_doubts(found, people, {name: [readable(file) for file in files[name]] for name in people})
    raise_faults(faults)


def choose(arguments: argparse.Namespace) -> None:
    """Sets the threshold of a gallery, by default that of a wanted false accept rate among other people."""
    found = galleries.load(arguments.gallery)
    if arguments.threshold is not None:
        found = found.with_threshold(arguments.threshold)
        found.save(arguments.gallery)
        print(f"threshold {arguments.threshold:g} in {readable(arguments.gallery)}")
        print_enrolled_doubts(found)
        return
    by_person, faults = list_people(arguments.input, None)
    if len(by_person) < 2:
        raise UserError(f"--input={readable(arguments.input)} has one person; a threshold takes two people.")
    shared = sorted(set(found.names) & set(by_person))
    if shared:
        print(
            f"Of those in {readable(arguments.input)}, {folder.listed(shared)} have the names of people enrolled. If "
            "they are the same people, the threshold is wrong: give others."
        )
    embedder = Embedder(arguments.run, arguments.step, arguments.batch or 16)
    found.check(embedder.fingerprint)
    rate = RATE if arguments.rate is None else arguments.rate
    numbers = {file: number for number, files in enumerate(by_person.values()) for file in files}
    read, embeddings, unread = embed(embedder, list(numbers))
    found, accepted = found.choose_threshold(embeddings, np.array([numbers[file] for file in read]), rate)
    found.save(arguments.gallery)
    usual = number_of(found.usual_pictures, "picture")
    print(
        f"threshold {found.threshold:.4g}: somebody enrolled by {usual} is found in at most "
        f"{rate:g} of the pictures of others, and in {accepted:.3g} of their own.\n{expect_alarms(found, rate)}"
    )
    print_enrolled_doubts(found)
    raise_faults(faults + unread)


def expect_alarms(gallery: Gallery, rate: float) -> str:
    """Says how often somebody unknown gets a name, at a false accept rate by the usual number of pictures."""
    enrolled = number_of(len(gallery.names), "name")
    if gallery.compare == "mean":
        alarms = f"about {1 - (1 - rate) ** len(gallery.names):.2g}"
    else:  # each further picture is a further chance, at most as good as those of which the rate is known
        counts = np.bincount(gallery.people, minlength=len(gallery.names))
        chances = np.maximum(1, np.ceil(counts / gallery.usual_pictures)).sum()
        alarms = f"at most {min(1, rate * chances):.2g}"
    return f"A picture of somebody unknown gets one of {enrolled} in {alarms} of all cases."


def verify(arguments: argparse.Namespace) -> None:
    """Prints for each picture whether it is of the person that it is said to be of."""
    found = galleries.load(arguments.gallery)
    found.verify(any_embedding(found), arguments.name)  # nobody of the name, or no threshold
    embedder = Embedder(arguments.run, arguments.step, arguments.batch or 16)
    found.check(embedder.fingerprint)
    files = folder.list_images(arguments.input) if arguments.input.is_dir() else [arguments.input]
    refuse_empty(arguments.input, files)
    read, embeddings, faults = embed(embedder, files)
    answers = found.verify(embeddings, arguments.name)
    for file, distance, same in zip(read, *answers, strict=True):
        print(f"{'yes' if same else 'no'}: {readable(file)} is at {distance:.3f} from {arguments.name}")
    print(f"threshold {found.threshold:.4g}")
    raise_faults(faults)


def remove(arguments: argparse.Namespace) -> None:
    """Removes a person."""
    found = galleries.load(arguments.gallery).remove(arguments.name)
    found.save(arguments.gallery)
    print(f"{arguments.name} is removed; {readable(arguments.gallery)} has {number_of(len(found.names), 'name')} now.")


def show(arguments: argparse.Namespace) -> None:
    """Prints who is enrolled, and by how many pictures."""
    found = galleries.load(arguments.gallery)
    counts = np.bincount(found.people, minlength=len(found.names))
    for name, count in zip(found.names, counts.tolist(), strict=True):
        print(f"{name}: {number_of(count, 'picture')}")
    threshold = "no threshold yet" if np.isnan(found.threshold) else f"threshold {found.threshold:.4g}"
    print(
        f"{number_of(len(found.names), 'name')}, {threshold}, by the {found.compare}, embeddings of {found.fingerprint}"
    )


# --- pictures and doubts ------------------------------------------------------------------------------------------


def list_people(source: Path, name: str | None) -> tuple[dict[str, list[Path]], list[str]]:
    """Returns (the pictures of each person below a folder, what is wrong with others).

    With a name, all pictures are that person's. Raises a UserError if there is no picture, nothing tells the names, or
    the folders are splits.
    """
    files = folder.list_images(source) if source.is_dir() else [source]
    refuse_empty(source, files)
    if name is not None:
        return {galleries.clean_name(name): files}, []
    if not source.is_dir():
        raise UserError(f"--input={readable(source)}: who is this? Give --name=NAME.")
    parts = {file: file.relative_to(source).parts for file in files}
    alone = [file for file in files if len(parts[file]) == 1]
    if len(alone) == len(files):
        raise UserError(
            f"--input={readable(source)} has no folder of a person: who is this? Give --name=NAME, or a folder in "
            "which each person has one of their name."
        )
    first = sorted({parts[file][0] for file in files if file not in alone})
    if all(splits.name_split(each) for each in first):
        raise UserError(
            f"--input={readable(source)} has the splits {', '.join(first)}, not people: give one of them, such as "
            f"--input={readable(source / first[0])}."
        )
    by_person: dict[str, list[Path]] = {}
    origins: dict[str, str] = {}
    for file in files:
        if file in alone:
            continue
        person = galleries.clean_name(readable(parts[file][0]))
        if origins.setdefault(person, parts[file][0]) != parts[file][0]:
            raise UserError(f"--input={readable(source)}: there are two people under one name, {person!r}.")
        by_person.setdefault(person, []).append(file)
    return by_person, [f"{readable(file)} is in no folder of a person" for file in alone]


def refuse_empty(source: Path, files: Sequence[Path]) -> None:
    """Raises a UserError if there are no pictures."""
    if not files:
        raise UserError(f"--input={readable(source)} holds no images ({', '.join(folder.SUFFIXES)}).")


def embed(embedder: Embedder, files: Sequence[Path]) -> tuple[list[Path], Embeddings, list[str]]:
    """Returns what `Embedder.read` does; raises a UserError if no picture could be read."""
    with doing(f"compiling and looking at {number_of(len(files), 'picture')}"):
        read, embeddings, faults = embedder.read(files)
    if not read:
        raise UserError(f"No picture could be read. {folder.listed(faults, '; ')}")
    return read, embeddings, faults


def print_enrolled_doubts(gallery: Gallery) -> None:
    """Prints the doubts about everybody enrolled, whose pictures have numbers, as they came."""
    people = {
        name: Embeddings(gallery.vectors[gallery.people == place], gallery.fingerprint)
        for place, name in enumerate(gallery.names)
    }
    print_doubts(
        gallery,
        people,
        {name: [f"picture {1 + index}" for index in range(len(each.vectors))] for name, each in people.items()},
    )


def print_doubts(gallery: Gallery, people: Mapping[str, Embeddings], files: Mapping[str, Sequence[str]]) -> None:
    """Prints new pictures that are far from the person's others, and new people who are near to another name."""
    doubts, done = [], set()
    for name, embeddings in people.items():
        everything = gallery.vectors[gallery.people == gallery.find(name)]  # the new ones come last
        for index, file in enumerate(files[name], start=len(everything) - len(files[name])):
            others = np.delete(everything, index, axis=0)
            if len(others):
                alone = Gallery.empty(gallery.fingerprint, everything.shape[1], gallery.compare)
                alone = alone.enrol({name: Embeddings(others, gallery.fingerprint)}).with_threshold(gallery.threshold)
                found = alone.verify(Embeddings(everything[index : index + 1], gallery.fingerprint), name)
                if not found.same[0]:
                    doubts.append(f"Is {file} of {name}? It is at {found.distances[0]:.3f} from the other pictures.")
        centre = Embeddings(embeddings.vectors.mean(axis=0, keepdims=True), gallery.fingerprint)
        near = gallery.identify(centre, count=2)
        for place, distance in zip(near.people[0], near.distances[0], strict=True):
            if gallery.names[place] not in done | {name} and distance <= gallery.threshold:
                doubts.append(f"{name} and {gallery.names[place]} look alike: they are at {distance:.3f}.")
        done.add(name)
    for doubt in doubts:
        print(doubt)


def raise_faults(faults: Sequence[str]) -> None:
    """Raises a `LeftOut` that lists what was wrong, if anything was."""
    if faults:
        raise LeftOut(f"Left out: {folder.listed(faults, '; ')}.")


if __name__ == "__main__":
    command.run_main(main)
