"""Go's text/template for ``--log-opt tag=``, with limits for its time and memory."""
