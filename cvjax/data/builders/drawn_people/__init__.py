"""`drawn_people`: scenes of people drawn from skeletons, with their joints, masks and boxes."""

from cvjax.data.builders.drawn_people.dataset import DrawnPeople
from cvjax.data.builders.drawn_people.figure import POSES, sample_figure
from cvjax.data.builders.drawn_people.scenes import Crowd, compose

__all__ = ["POSES", "Crowd", "DrawnPeople", "compose", "sample_figure"]
