"""The controllers: loops of the swarm's leader. Each compares what is wanted with what is there and commits the
difference; it keeps nothing that matters in memory, so that another leader can continue at any moment."""
