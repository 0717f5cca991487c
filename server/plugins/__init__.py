"""Docker's legacy plugins: programs that serve JSON over HTTP on a socket, as volume drivers or log drivers.

``directories`` finds the address of a plugin by its name, ``discovery`` activates the plugin of a name and an interface
(``VolumeDriver``, ``LogDriver``, ``NetworkDriver``, ``authz`` …), ``client`` calls its methods. What a method means is
up to the packages that use it: ``server.volumes.plugin`` and ``server.containers.logs.plugin``. ``authorization`` has
the methods of ``authz``, which ``server.http.authorization`` calls for each request.
"""
