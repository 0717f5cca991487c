"""Go's text/template, as far as ``--log-opt tag=`` uses it, with bounded work."""
