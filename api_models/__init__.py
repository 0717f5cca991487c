"""The JSON objects of the Engine API, one module for each noun. Each field is declared once, with what differs between
the API's versions beside it.

``base`` and ``record`` are the two kinds of declarations, ``versions`` the marks of fields and query parameters, and
``changes`` what is neither. ``decode`` reads a request's body, with the sentences of Go's decoder for what is wrong
(``gojson``); ``filters``, ``until`` and ``times`` read and write the API's other formats.
"""
