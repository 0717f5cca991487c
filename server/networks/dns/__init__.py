"""Names: ``/etc/hosts``, ``/etc/hostname``, ``/etc/resolv.conf``, and the names for the DNS server in wharf-proxy."""
