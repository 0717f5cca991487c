"""Clients of Node.js: a script for each, in JavaScript, and the versions of their packages."""
