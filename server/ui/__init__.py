"""The page: what ``--ui`` serves to browsers. Nothing of this package is imported without that flag.

* ``application`` is the ASGI application. Below ``/api`` it passes requests to the application of the Engine API, with
  the identity of the session: the page has no way to objects but the API's. ``security`` comes before all of it.
* ``login`` exchanges a token, or a user's password (``passwords``), for a session (``server/access/sessions.py``);
  ``documents`` are the HTML documents.
* ``live`` is the one stream of a page: the engine's events, and the samples of ``sampler``, which ``history`` keeps for
  an hour. ``problems`` keeps the last warnings and errors of the daemon's log.
* ``compose`` runs the compose CLI on this machine for projects whose files are here.
* ``templates`` are Jinja2's. ``static`` has the style and the scripts (ES modules without a build step), and below
  ``static/vendor`` libraries as ``vendor`` has installed them from npm.
"""
