"""Names of images, parsed and shown as in Docker."""

import pytest

from engine.common.errors import WharfError
from server.registry.reference import DigestReference, Reference, is_digest, parse, parse_any, parse_canonical

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox:a", "docker.io/library/busybox:a", "busybox:a"),
        ("user/image", "docker.io/user/image", "user/image"),
        ("localhost/image", "localhost/image", "localhost/image"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("Host/a", "Host/a", "Host/a"),
        ("quay.io/a", "quay.io/a", "quay.io/a"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        (f"a@{DIGEST}", f"docker.io/library/a@{DIGEST}", f"a@{DIGEST}"),
        (f"a:t@{DIGEST}", f"docker.io/library/a:t@{DIGEST}", f"a:t@{DIGEST}"),
        ("a__b--c.d_e", "docker.io/library/a__b--c.d_e", "a__b--c.d_e"),
        ("library/x/y", "docker.io/library/x/y", "library/x/y"),
    ],
)
def test_names(text: str, full: str, familiar: str) -> None:
    parsed = parse(text)
    assert str(parsed) == full
    assert parsed.familiar == familiar
    assert parse_canonical(full) == parsed
    assert parse(familiar) == parsed


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "invalid reference format"),
        ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
        ("a/B:c", "invalid reference format: repository name (a/B) must be lowercase"),
        ("a:", "invalid reference format"),
        ("a:.x", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a@sha256:abc", "invalid reference format"),
        ("a@sha512:" + "ab" * 32, "invalid checksum digest length"),
        ("a@md5:" + "ab" * 16, "unsupported digest algorithm"),
        ("ab" * 32, f"invalid repository name ({'ab' * 32}), cannot specify 64-byte hexadecimal strings"),
        ("x/" + "a" * 256, "repository name must not be more than 255 characters"),
    ],
)
def test_invalid_names(text: str, sentence: str) -> None:
    with pytest.raises(WharfError) as caught:
        parse(text)
    assert caught.value.message == sentence


def test_ids_and_parts() -> None:
    assert parse_any("ab" * 32) == DigestReference(DIGEST)
    assert parse_any(DIGEST) == DigestReference(DIGEST)
    assert parse_any("abcd") == Reference("docker.io", "library/abcd")
    assert parse("a").tagged().tag == "latest"
    assert parse(f"a@{DIGEST}").tagged().tag == ""
    assert parse(f"a:t@{DIGEST}").selector == DIGEST
    assert not is_digest("sha256:xyz")
    with pytest.raises(WharfError, match="invalid tag format"):
        parse("a").with_tag("not/a/tag")
    assert parse_canonical("busybox") is None
