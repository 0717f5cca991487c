"""Many users on one engine: what each sees, may do, and can not reach of the others."""
