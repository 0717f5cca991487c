"""Images. ``Images`` is the service; ``Image`` is one made ready for a container."""

from server.services.images.model import Image, ImageUser
from server.services.images.service import Images

__all__ = ["Image", "ImageUser", "Images"]
