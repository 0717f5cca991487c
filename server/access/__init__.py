"""Who sends a request, and what belongs to whom.

``caller`` is what services know of the client; ``owners`` and ``scope`` are parts of it, and ``refusal`` is the error
for what its role does not allow. ``policy`` reads ``policy.toml``, ``identity`` finds the caller of a connection by it,
``roles`` finds the role of an object's owner, ``audit`` logs requests, ``connections`` counts those of each user,
``gate`` keeps all of them but the roles, and ``setup`` makes the gate. Without a policy file every caller is
``EVERYONE``, and only the first four are loaded.

An *owner* is text, stored in the records of containers, volumes and networks and in the names of images:

* "": the administrators together (all objects of an engine without a policy);
* ``alice``: the user of that name;
* ``alice:0f3c…``: what was created through a job socket of that user.
"""
