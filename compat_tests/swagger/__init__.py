"""The published API description (Swagger 2.0), against which the JSON answers of the tests are checked.

``compat_tests/golden/swagger.json`` has what the check needs of each version, without the description's prose:
``python -m compat_tests.swagger.record FILE.yaml ...`` writes it from the files ``api/swagger.yaml`` and
``api/docs/v1.NN.yaml`` of the moby project.
"""
