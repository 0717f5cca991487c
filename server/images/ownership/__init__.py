"""What exists for one user, and not for others: names of images, and layers, whose content all owners share."""
