"""Images. ``service.Images`` is what routes and containers call; ``model.Image`` is ready for a container."""
