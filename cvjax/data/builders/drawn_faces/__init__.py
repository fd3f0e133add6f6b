"""`drawn_faces`: faces drawn from parameters of identity, pose, expression, age and scene.

faces = sample_views(1, sample_identities(0, 8))
images, landmarks, regions = draw(faces.edited(age=70), 64)
"""

from cvjax.data.builders.drawn_faces.dataset import DrawnFaces
from cvjax.data.builders.drawn_faces.drawing import EXCHANGE, draw
from cvjax.data.builders.drawn_faces.painting import REGIONS
from cvjax.data.builders.drawn_faces.parameters import Faces, sample_identities, sample_views

__all__ = ["EXCHANGE", "REGIONS", "DrawnFaces", "Faces", "draw", "sample_identities", "sample_views"]
