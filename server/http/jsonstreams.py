"""Media types of JSON streams, and which of them a client accepts (RFC 9110, section 12.5.1).

JSON Lines and newline-delimited JSON have the same form: one object per line. In a JSON text sequence (RFC 7464), a
record separator precedes each object.
"""

from starlette.requests import Request

JSON = "application/json"
JSON_LINES = "application/jsonl"
NDJSON = "application/x-ndjson"
JSON_SEQUENCE = "application/json-seq"

#: In the order in which the daemon prefers them.
OFFERS = (JSON_LINES, NDJSON, JSON_SEQUENCE)

_RECORD_SEPARATOR = b"\x1e"


def prefix(media_type: str) -> bytes:
    """What precedes each object of a stream."""
    return _RECORD_SEPARATOR if media_type == JSON_SEQUENCE else b""


def accepted(request: Request) -> str:
    """The media type of a JSON stream that the client names with the greatest weight, or "": wildcards don't count."""
    weights = _weights(request)
    named = [offer for offer in OFFERS if weights.get(offer, 0) > 0]
    return max(named, key=lambda offer: weights[offer], default="")


def negotiated(request: Request, default: str) -> str:
    """The media type of a JSON stream that suits the client best; wildcards count, an exact name before them."""
    weights = _weights(request)
    best, rank = default, (0.0, 0)
    for offer in OFFERS:
        for specificity, pattern in ((2, offer), (1, "application/*"), (0, "*/*")):
            found = (weights.get(pattern, 0.0), specificity)
            if found[0] > 0 and found > rank:
                best, rank = offer, found
    return best


def _weights(request: Request) -> dict[str, float]:
    """Media ranges of the Accept headers with their weights; a range with an invalid weight is left out."""
    found: dict[str, float] = {}
    for part in ",".join(request.headers.getlist("accept")).split(","):
        media, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            found[media] = max(found.get(media, 0.0), float(weight))
        except ValueError:
            continue
    return found
