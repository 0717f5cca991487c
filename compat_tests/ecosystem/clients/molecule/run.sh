# Create, converge, a second run without changes, verify, destroy: a scenario of molecule with its docker driver.
molecule test
