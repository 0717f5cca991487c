"""Mount points: parsed from a request (``mountspec``), resolved at create (``mounts``), mounted at start
(``mounting``).

Also the root file system (``rootfs``, ``snapshot``) and the layer between image and container (``initlayer``).
"""
