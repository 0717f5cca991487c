"""The swarm's own etcd: one member on each manager, as a child of wharfd.

wharfd speaks to the member of its own node only, over a unix socket in a directory of root's, and the members speak to
each other over mTLS with the certificates of the swarm's CA: etcd accepts only those of managers
(``--peer-cert-allowed-hostname=swarm-manager``).

=================  ====================================================================================================
``program``        finds etcd, and has the options of a member
``child``          runs etcd and starts it again when it ends; ``output`` reads its messages
``members``        the members of the cluster: list, add as a learner, promote, remove (etcd's service Cluster)
``maintenance``    alarms (NOSPACE), compaction and defragmentation (etcd's service Maintenance)
``move``           moves the state of a swarm from SQLite into a new etcd
=================  ====================================================================================================
"""
