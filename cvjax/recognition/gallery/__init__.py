"""People known by embeddings of their pictures: verified, identified, added and removed without training."""

from cvjax.recognition.gallery.people import Embeddings, Gallery, Identified, Verified, clean_name, load

__all__ = ["Embeddings", "Gallery", "Identified", "Verified", "clean_name", "load"]
