"""What makes layers: ``COPY``, ``ADD``, ``RUN``'s mounts, selection and hashing of files, packing and conversion."""
