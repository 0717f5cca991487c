"""The servicers, one for each of containerd's services: decode, call, encode."""
