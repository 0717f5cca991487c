"""``GET /metrics``: the metrics of containers by cAdvisor's names, of the engine by dockerd's, in the formats of
Prometheus and OpenMetrics.

``facade`` is all that the rest of the daemon imports. The other modules and prometheus-client are loaded by the first
request, or at the start with ``--metrics-addr``; the engine counts its own operations from then on.

* ``scrape`` answers: requests for the same view at the same time share one collection, in one thread.
* ``cgroups`` and ``traffic`` read counters from files of the kernel: about a dozen files for each container and one
  for all network devices. No process is started, and the supervisor is not asked.
* ``containers`` makes metrics of what was read, ``engine`` of the daemon's own counters, ``owners`` of users' accounts.

Who sees what: an administrator all; a user the own containers and account; a socket with a scope the containers in the
scope. With a policy, ``--metrics-addr``, whose clients can't be identified, has only the metrics of the engine.
"""
