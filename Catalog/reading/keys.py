"""Key derivation and key slots (FORMAT.md, section 2)."""

import hashlib
import hmac
import re

from .names import COMPONENT, ID
from .values import Failure, clean, damage, member, unknown

FORMAT = "0-draft"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", re.ASCII)


def hkdf(ikm, salt, info, length=32):
    """HKDF-SHA-256 (RFC 5869) for outputs of one block."""
    key = hmac.new(salt, ikm, hashlib.sha256).digest()
    return hmac.new(key, info + b"\x01", hashlib.sha256).digest()[:length]


def aes_gcm_open(key, nonce, sealed, additional):
    """The plain bytes, or None if they are not authentic."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(nonce, sealed, additional)
    except InvalidTag:
        return None


def open_slot(slot, repository_id, secret, what):
    """(key id, data key) of a key slot, or None if it is not for this kind of secret."""
    key_id = member(slot, "key", str, what, ID)
    slot_id = member(slot, "slot", str, what, r"[0-9a-f]{16}")
    if member(slot, "format", str, what) != FORMAT:
        raise unknown(what, f'its format is "{clean(slot["format"])}"')
    if member(slot, "repository", str, what) != repository_id:
        raise damage(what, "it belongs to another repository")
    derivation = member(slot, "derivation", dict, what)
    name = member(derivation, "name", str, what)
    salt = bytes.fromhex(member(derivation, "salt", str, what, r"[0-9a-f]{64}"))
    bound = [repository_id, key_id, member(slot, "sequence", int, what), slot_id, member(slot, "label", str, what)]
    bound += [member(slot, "createdAt", str, what), name, derivation["salt"]]
    if name not in ("hkdf-sha-256", "scrypt") or member(slot, "cipher", str, what) != "aes-256-gcm":
        raise unknown(what, "its derivation or cipher is unknown")
    nonce = bytes.fromhex(member(slot, "nonce", str, what, r"[0-9a-f]{24}"))
    wrapped = bytes.fromhex(member(slot, "wrapped", str, what, r"[0-9a-f]{96}"))
    if name == "scrypt":
        n, r, p = (member(derivation, parameter, int, what) for parameter in "nrp")
        if n not in [1 << bits for bits in range(15, 21)] or (r, p) != (8, 1):
            raise damage(what, f"its scrypt parameters are out of range (n {n}, r {r}, p {p})")
        bound += [n, r, p]
    if slot["sequence"] == 0 or not COMPONENT.fullmatch(slot["label"]) or not MOMENT.fullmatch(slot["createdAt"]):
        raise damage(what, "its sequence, label or time is not what it must be")
    if secret is None or secret[0] != name:
        return None
    if name == "scrypt":
        wrapping = hashlib.scrypt(secret[1], salt=salt, n=n, r=r, p=p, maxmem=129 * n * r + (1 << 20), dklen=32)
    else:
        wrapping = hkdf(secret[1], salt, b"kedge-key-slot")
    additional = "\n".join(["kedge-key-slot", *map(str, bound)]).encode()
    key = aes_gcm_open(wrapping, nonce, wrapped, additional)
    if not key:
        raise Failure("key-wrong", f"the given secret does not open {what}")
    return bytes.fromhex(key_id), key


def read_secret(options):
    """("hkdf-sha-256", 32 bytes) or ("scrypt", passphrase) or None"""
    if options.key_file:
        with open(options.key_file, "rb") as file:
            text = file.read(1024)
        if not re.fullmatch(rb"[0-9A-Fa-f]{64}\n?", text):
            name = clean(options.key_file)
            raise Failure("usage", f'key file "{name}" does not hold one line of 64 hexadecimal digits')
        return "hkdf-sha-256", bytes.fromhex(text.decode())
    if options.passphrase_file:
        with open(options.passphrase_file, "rb") as file:
            text = file.read(1 << 16)
        return "scrypt", text[:-1] if text.endswith(b"\n") else text
    return None
