"""Mount points: read from a request (``mountspec``), decided at create (``mounts``), mounted at start (``mounting``).
The root file system and the layer between image and container are here, too.
"""
