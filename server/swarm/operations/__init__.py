"""The operations of the API on the swarm's state. An operation checks a request, commits, and returns; controllers do
the rest. Sentences and kinds of errors are dockerd's."""
