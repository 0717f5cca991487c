"""Log drivers that send lines to a server, a module for each, under its name. A shim imports only the one it needs."""
