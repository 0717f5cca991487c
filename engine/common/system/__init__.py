"""The doors to the kernel and to other programs; everything here is synchronous unless it says async."""
