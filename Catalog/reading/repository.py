"""A local repository, opened for one cluster: plain objects, keys, registrations, records."""

import os
import re
import stat

from .keys import FORMAT, open_slot
from .names import COMPONENT, ID, KINDS, LABEL, SYSTEM
from .sealed import Sealed
from .values import Failure, clean, damage, member, members_of, parse_json, unknown, warn

MAX_PLAIN = 64 << 10
MAX_RECORD = 64 << 20


class Repository:
    """One cluster of a local repository."""

    def __init__(self, directory, cluster, secret=None):
        self.directory, self.cluster, self._secret, self.encrypted = directory, cluster, secret, secret is not None
        self._keys, self._slot_problems = {}, []
        if not COMPONENT.fullmatch(cluster) or cluster in ("kedge.json", "feature", "key"):
            raise Failure("usage", f'"{clean(cluster)}" is not the name of a cluster')
        description = self._plain("kedge.json", "repository")
        if member(description, "format", str, "kedge.json") != FORMAT:
            raise unknown("the repository", f'its format is "{clean(description["format"])}"')
        self.id = member(description, "id", str, "kedge.json", ID)
        for name in self.names("feature"):
            feature = self._plain(f"feature/{name}", "feature")
            if "read" in member(feature, "neededTo", list, f'feature "{name}"'):
                what = f'cannot read the repository: it needs the feature "{name}"'
                raise Failure("feature-unknown", what, "Use a reader that is newer than the repository.")
        self._read_slots()
        self._read_registrations()

    def open(self, name):
        """A file descriptor of an object's file."""
        path = os.path.join(self.directory, *name.split("/"))
        try:
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Failure("not-found", f'there is no object "{name}"') from None
        except OSError as error:
            raise Failure("input-output", f'could not open object "{name}": {error.strerror}') from None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise damage(f'object "{name}"', "it is not a regular file")
        return file

    def names(self, directory):
        """What lies directly below a directory, sorted; nothing if it is not there."""
        try:
            names = sorted(os.listdir(os.path.join(self.directory, *directory.split("/"))))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise Failure("input-output", f'could not list "{directory}": {error.strerror}') from None
        names = [name for name in names if not name.startswith(".kedge-tmp-")]
        for name in names:
            if not COMPONENT.fullmatch(name):
                warn(f'"{clean(directory)}/{clean(os.fsencode(name))}" does not belong in a repository')
        return [name for name in names if COMPONENT.fullmatch(name)]

    def plain_bytes(self, name):
        with os.fdopen(self.open(name), "rb") as file:
            data = file.read(MAX_PLAIN + 1)
        if len(data) > MAX_PLAIN:
            raise damage(f'object "{name}"', "it is longer than such an object can be")
        return data

    def _plain(self, name, kedge):
        return parse_json(self.plain_bytes(name), f'object "{name}"', kedge)

    def _read_slots(self):
        """Opens what the secret opens. That nothing opens is an error at once, as every command would fail."""
        for key in self.names("key"):
            for slot in self.names(f"key/{key}"):
                name = f"key/{key}/{slot}"
                try:
                    value = self._plain(name, "key-slot")
                    if (value.get("key"), value.get("slot")) != (key, slot):
                        raise damage(f'object "{name}"', "it belongs under another name")
                    self.add_slot(value, f'object "{name}"')
                except Failure as problem:  # one bad slot must not hide a good one
                    self._slot_problems.append(problem)
        if self.encrypted and not self._keys:
            if self._slot_problems:
                raise self._slot_problems[0]
            raise Failure("key-missing", "the repository has no key slot for this kind of secret")

    def add_slot(self, slot, what):
        """Takes in the key of a slot, if it is for this kind of secret."""
        if isinstance(slot.get("key"), str) and ID.fullmatch(slot["key"]) and bytes.fromhex(slot["key"]) in self._keys:
            return
        opened = open_slot(slot, self.id, self._secret, what)
        if opened:
            self._keys[opened[0]] = opened[1]

    def key(self, key_id, what):
        if key_id not in self._keys:
            problems = "".join(f"; {problem}" for problem in self._slot_problems)
            hint = "Check the key file or passphrase, and that it is one for this repository."
            raise Failure("key-missing", f"the given secret opens no slot of the key that {what} needs{problems}", hint)
        return self._keys[key_id]

    def _read_registrations(self):
        self.registrations, ids = {}, set()
        for system in self.names(f"{self.cluster}/system"):
            if not re.fullmatch(SYSTEM, system):
                warn(f'"{self.cluster}/system/{system}" does not belong in a repository')
                continue
            name = f"system/{system}"
            with Sealed(self, f"{self.cluster}/{name}", 1, bytes.fromhex(self.id), name) as sealed:
                record = read_record(sealed, "registration")
            if member(record, "systemIdentifier", str, sealed.what) != system:
                raise damage(sealed.what, "it belongs under another name")
            size = member(record, "walSegmentSize", int, sealed.what)
            if size not in [1 << bits for bits in range(20, 31)]:
                raise damage(sealed.what, "its WAL segment size is impossible")
            if member(record, "name", str, sealed.what) != self.cluster:
                warn(f'cluster "{self.cluster}" was registered as "{clean(record["name"])}"')
            ids.add(member(record, "clusterID", str, sealed.what, ID))
            self.registrations[system] = record
        if not ids:
            raise Failure("not-found", f'there is no cluster "{self.cluster}" in the repository')
        if len(ids) > 1:
            raise damage(f'cluster "{self.cluster}"', "its registrations have different cluster ids")
        self.cluster_id = bytes.fromhex(ids.pop())

    def sealed(self, name):
        """The object of this name below the cluster; the name says of what kind it must be."""
        for kind, _, pattern in KINDS:
            if len(name) <= 1000 and re.fullmatch(pattern, name):
                scope = bytes.fromhex(self.id) if kind == 1 else self.cluster_id
                return Sealed(self, f"{self.cluster}/{name}", kind, scope, name)
        raise Failure("usage", f'"{clean(name)}" is not the name of an object', "Give its name below the cluster.")

    def record(self, name):
        kedge = next(kedge for _, kedge, pattern in KINDS if re.fullmatch(pattern, name))
        with self.sealed(name) as sealed:
            return read_record(sealed, kedge)

    def commit_record(self, label):
        if not re.fullmatch(LABEL, label):
            raise Failure("usage", f'"{clean(label)}" is not the label of a backup')
        what = f'commit record "{label}"'
        record = self.record(f"catalog/backup/{label}")
        if member(record, "label", str, what) != label:
            raise damage(what, "it belongs to another backup")
        if member(record, "systemIdentifier", str, what) not in self.registrations:
            raise damage(what, "no registration has its system identifier")
        for slot in members_of(record, "keySlots", what):
            if self.encrypted:
                try:
                    self.add_slot(slot, f"a key slot in {what}")
                except Failure as problem:
                    self._slot_problems.append(problem)
        return record


def read_record(sealed, kedge):
    data = bytearray()
    for _, raw in sealed.frames():
        data += raw
        if len(data) > MAX_RECORD:
            raise damage(sealed.what, "it is longer than a record can be")
    return parse_json(bytes(data), sealed.what, kedge)
