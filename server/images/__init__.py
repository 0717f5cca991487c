"""Images. ``Images`` is the service; ``Image`` is one made ready for a container."""

from server.images.model import Image, ImageUser
from server.images.service import Images

__all__ = ["Image", "ImageUser", "Images"]
