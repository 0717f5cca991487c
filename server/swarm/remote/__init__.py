"""How the nodes of a swarm speak with each other: HTTP/1.1 with JSON over TLS 1.3, with certificates of the swarm's CA.

Not gRPC: one port must serve nodes with a certificate and those that have none yet, and grpcio's server either demands
certificates of all clients or of none.

``server.swarmapi`` serves these requests; this package makes them. Documents are records as ``model.codec`` stores
them. An error is ``{"kind": Kind, "message": text}`` with the status of the kind, and is raised again as a WharfError
on the other side. The certificate's common name is the node's id, its organizational unit the role, its organization
the swarm's id.

A stream has one document in each line. An empty line says every few seconds that it goes on; ``{"error": …}`` is its
last line after a failure. A log has its chunks, each after its length in four bytes, instead.

==============  =======================================================================================================
``identity``    this node's certificate and key on its disk, and TLS contexts with them
``wire``        the documents, their bounds; the assignments as a stream of differences
``records``     bodies and answers of the requests with which a node joins and stays in the swarm
``join``        a node joins
``client``      requests to any manager, with failover
``dispatcher``  an agent's dispatcher over them
``renewal``     renews a worker's certificate, follows the managers and the node's role
``logs``        logs of tasks of other nodes
``images``      images from other nodes
==============  =======================================================================================================

The managers' port (``Membership.listen_addr``, 2377):

=========================  ============================================================================================
``GET /v1/ca``             without a certificate: the root certificate, whose digest the join token has
``POST /v1/join``          without a certificate, with a join token: admits a node, answers with its certificate
``POST /v1/renew``         a certificate for the node's new key, with the role that the node's spec has now
``GET /v1/managers``       the managers, and the role that the calling node shall have; also whenever one of it changes
``POST /v1/member``        for a node with a manager's certificate: a learner of etcd; answers with the data key
``POST /v1/member/promote``  the learner has caught up, and becomes a voting member
``/v1/dispatcher/…``       the methods of ``agent.dispatcher.Dispatcher``, for the calling node
=========================  ============================================================================================

Every node's port (7946, the port that Docker's documentation tells to open between nodes; a node that finds it in use
works without it, and tries again):

=========================  ============================================================================================
``GET /v1/tasks/{id}/log``   for managers: the log of a task's container
``GET /v1/image``            for nodes: the manifest or index of the image of a task that the calling node has
``GET /v1/blobs/{digest}``   for nodes: content of such an image, for nodes that reach no registry
=========================  ============================================================================================

While the state moves from SQLite into etcd, a manager answers UNAVAILABLE to ``join``; the client repeats it.
"""
