"""Containers: create, run, look at, and remove them, with Docker's semantics and no HTTP.

``service.Containers`` is what routes and other services call; one module per verb or noun beside it.
"""
