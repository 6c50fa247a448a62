// Which data keys the objects of a repository are sealed with, read from their headers.
//
// A header is plain, and its own checksum finds accidents. Whoever can write to the repository can change what a header
// says; he could remove the object just as well.

import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// How many objects name each data key.
package struct KeyUsage: Hashable, Sendable {
    /// What is looked at.
    package enum Scope: Hashable, Sendable {
        /// Commit records alone: one short read a backup.
        case backups
        /// Everything that is or may be sealed: one short read an object.
        case allObjects
    }

    /// Objects by key; a key without any has no entry.
    package private(set) var objects: [RandomID: Int] = [:]
    /// Objects whose header can't be read, so that nobody knows which key they need; at most the first hundred.
    package private(set) var unreadable: [ObjectName] = []

    package init() {}

    /// For tests: objects by key, and what could not be read.
    package init(objects: [RandomID: Int], unreadable: [ObjectName] = []) {
        self.objects = objects
        self.unreadable = unreadable
    }

    /// Whether it is proven that no object needs the key.
    package func provesUnused(_ key: RandomID) -> Bool { objects[key] == nil && unreadable.isEmpty }

    /// Reads the headers. Throws what listing and reading throw: what could not be looked at is never taken for unused.
    package static func count(in store: any ObjectStore, _ scope: Scope) throws(KedgeError) -> KeyUsage {
        var usage = KeyUsage()
        switch scope {
        case .allObjects:
            try store.forEachObject(below: nil) { (entry) throws(KedgeError) in
                try usage.add(entry.name, in: store)
            }
        case .backups:
            for cluster in try store.directories(below: nil) {
                guard let records = cluster.appending(ClusterLayout.commitRecords.text) else { continue }
                try store.forEachObject(below: records) { (entry) throws(KedgeError) in
                    try usage.add(entry.name, in: store)
                }
            }
        }
        return usage
    }

    private mutating func add(_ name: ObjectName, in store: any ObjectStore) throws(KedgeError) {
        guard KeyUsage.mayBeSealed(name) else { return }
        let header: ObjectHeader
        do throws(KedgeError) {
            header = try KeyUsage.header(of: name, in: store)
        } catch {
            switch error.code {
            case .notFound: return
            case .damaged, .formatUnknown:
                if unreadable.count < 100 { unreadable.append(name) }
                return
            default: throw error
            }
        }
        if header.cipher != .none { objects[header.keyID, default: 0] += 1 }
    }

    /// Everything but the plain objects at the top, and what `check` writes to try the store.
    private static func mayBeSealed(_ name: ObjectName) -> Bool {
        let parts = name.components
        guard parts.count > 1 else { return name != RepositoryLayout.marker }
        return !name.isBelow(RepositoryLayout.keys) && !name.isBelow(RepositoryLayout.features)
            && parts[1] != ClusterLayout.probes.text
    }

    private static func header(of name: ObjectName, in store: any ObjectStore) throws(KedgeError) -> ObjectHeader {
        let what = "object \"\(name)\""
        var prefix = try store.readPrefix(name, limit: 512)
        let length = try prefix.withBytes { (prefix) throws(KedgeError) in
            try ObjectHeader.length(of: prefix, what: what)
        }
        if let length, length > prefix.count { prefix = try store.readPrefix(name, limit: length) }
        return try prefix.withBytes { (prefix) throws(KedgeError) in
            try ObjectHeader.decode(prefix, what: what).header
        }
    }
}
