"""Names: ``/etc/hosts``, ``/etc/hostname``, ``/etc/resolv.conf``, and what the DNS server in wharf-proxy answers."""
