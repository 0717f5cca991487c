"""Images. ``service.Images`` is what routes and containers call; ``model.Image`` is one made ready for a container."""
