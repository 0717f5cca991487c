"""Go's text/template for ``--log-opt tag=`` and for services, with limits for its time and memory."""
