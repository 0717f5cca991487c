"""The command ``wharf``, a client of ``/wharf/v1``: what it shows of an engine with a policy.

``parser`` has the arguments, ``commands`` what they do, ``client`` the requests, ``tables`` and ``text`` the output. It
imports nothing of wharfd but the reader of the policy, and that only for ``wharf policy check``.
"""
