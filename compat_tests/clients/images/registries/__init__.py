"""Pulls and pushes: registries, mirrors, authentication, progress, interruptions."""
