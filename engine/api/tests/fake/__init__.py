"""A server of containerd's API in memory, for unit tests without root and without a supervisor.

``FakeServer(directory).client()`` is an ordinary :class:`engine.api.client.Engine` whose calls reach the fake instead
of a socket; messages are serialized on the way as on the wire. Content, images, leases, containers, tasks, namespaces
and events live in memory. Snapshots are directories below ``directory``: each is a whole copy of its parent, mounted
by a bind mount. Layers are applied and compared with :mod:`tarfile`.

The fake passes the suites that the supervisor and a stock containerd pass, ``test_api.py``, ``test_api_content.py`` and
``snapshotters.py`` in ``engine/supervisor/tests``. What differs: tasks run no process
(:class:`engine.api.tests.fake.tasks.Tasks` says how their exit is made), and garbage is collected only by a delete with
``sync``.
"""

from engine.api.tests.fake.server import FakeServer

__all__ = ["FakeServer"]
