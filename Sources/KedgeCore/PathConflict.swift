// Which of Kedge's own files lie where a restore removes what does not belong: a repository, a key.
//
// A restore with --delta makes a data directory what it was when the backup was taken. What lies in it and is in no
// backup goes: so nothing that a restore needs, and no backup, may lie there.

/// A file or directory of Kedge's own that has to outlive every restore.
package struct KeptPath: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        case repository
        /// Of a secret, a setting, or a directory to work in.
        case other
    }

    package let kind: Kind
    /// How messages call it, such as `repository "main"`.
    package let name: String
    /// Where it is found on the way that its configured path goes: itself without links, and each link on the way,
    /// since one that is removed takes away what it leads to.
    package let places: [RawPath]

    package init(_ kind: Kind, _ name: String, places: [RawPath]) {
        self.kind = kind
        self.name = name
        self.places = places
    }

    /// What lies at `path`, which is absolute. What can't be looked at counts by its name.
    package init(_ kind: Kind, _ name: String, at path: RawPath) {
        var places = [KeptPath.resolved(path)]
        var entry = path
        while entry.isAbsolute, entry.parent != entry {
            if KeptPath.isLink(entry) {
                places.append(KeptPath.resolved(entry.parent).appending(entry.lastComponent))
            }
            entry = entry.parent
        }
        self.init(kind, name, places: places)
    }

    private static func resolved(_ path: RawPath) -> RawPath {
        do throws(KedgeError) {
            return try FileSystem.resolved(path)
        } catch {
            // Whoever needs it says what is wrong with it.
            return path
        }
    }

    private static func isLink(_ path: RawPath) -> Bool {
        do throws(KedgeError) {
            return try FileStatus(at: path).kind == .symbolicLink
        } catch {
            return false
        }
    }
}

/// A directory in which a restore removes what the backup does not have.
package struct ClearedDirectory: Hashable, Sendable {
    /// How messages call it, such as `the data directory`.
    package let name: String
    /// Absolute and without links.
    package let path: RawPath

    package init(_ name: String, _ path: RawPath) {
        self.name = name
        self.path = path
    }
}

/// Something of Kedge's own that a restore would remove.
package struct PathConflict: Hashable, Sendable {
    package let kept: KeptPath
    package let place: RawPath
    package let directory: ClearedDirectory

    /// Each of `kept` that lies in one of `directories`, once, in their order.
    package static func find(_ kept: [KeptPath], in directories: [ClearedDirectory]) -> [PathConflict] {
        kept.compactMap { kept in
            for place in kept.places {
                if let directory = directories.first(where: { place.liesAtOrBelow($0.path) }) {
                    return PathConflict(kept: kept, place: place, directory: directory)
                }
            }
            return nil
        }
    }

    /// One sentence.
    package var sentence: String {
        let way = place == directory.path ? "is" : "lies in"
        return "\(kept.name), at \"\(place)\", \(way) \(directory.name) \"\(directory.path)\"."
    }

    /// All of `conflicts` as one error; nil where there is none.
    package static func error(
        _ message: String, _ conflicts: [PathConflict],
        because reason: String = "A restore removes there what its backup does not have."
    ) -> KedgeError? {
        guard !conflicts.isEmpty else { return nil }
        let sentences = conflicts.map(\.sentence).map { $0.prefix(1).uppercased() + $0.dropFirst() }
        return KedgeError(
            .configuration, message,
            detail: sentences.joined(separator: "  ") + "  " + reason,
            hint: "Move what is named out of that directory, say so in the configuration, and run the command again.")
    }
}

extension RawPath {
    /// Whether this is `directory` or lies below it, by their components: "/data2" does not lie in "/data".
    package func liesAtOrBelow(_ directory: RawPath) -> Bool {
        let own = bytes.split(separator: 0x2F)
        return isAbsolute == directory.isAbsolute && own.starts(with: directory.bytes.split(separator: 0x2F), by: ==)
    }
}
