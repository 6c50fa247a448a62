// What a restore with --delta does to the tree of files: pure decisions, one directory at a time.
//
// The manifest's entries come in path order, which puts a directory before all that lies below it and neighbours in the
// order of their names; a directory's own entries are listed in that order too. So the two are merged as they come, and
// memory holds the listings of the directories on the way to the present entry.
//
// What the backup does not have is removed as a whole. A directory that is not what it should be, a link for one, is
// never looked into: it is removed, and everything below it made anew.

package import KedgeCatalog
package import KedgeCore

/// One thing to be done, in this order.
package enum TreeStep: Hashable, Sendable {
    /// It is not in the backup: it goes, with everything below it.
    case remove(ManifestPath, FileKind)
    /// Nothing is there.
    case make(ManifestEntry)
    /// Something of another kind is there.
    case replace(ManifestEntry, FileKind)
    /// Something of its kind is there.
    case keep(ManifestEntry)
}

/// Merges a manifest with what is there.
package struct TreeMerge {
    /// What lies in a directory of the backup, sorted by the bytes of the names; nil stands for the data directory.
    package typealias Listing = (ManifestPath?) throws(KedgeError) -> [DirectoryEntry]

    private let list: Listing
    /// The kind of file that an entry is to become.
    private let kind: (ManifestEntry) -> FileKind
    private var open: [Level] = []

    private struct Level {
        var path: ManifestPath?
        var entries: [DirectoryEntry]
        var next = 0
    }

    /// `list` is asked once for each directory that is there and stays, and for each link of a tablespace or pg_wal.
    package init(kind: @escaping (ManifestEntry) -> FileKind, list: @escaping Listing) throws(KedgeError) {
        self.kind = kind
        self.list = list
        open = [Level(path: nil, entries: try list(nil))]
    }

    /// The steps that lead up to the next entry, and the one for it. Entries come in path order, each after its
    /// directory.
    package mutating func take(_ entry: ManifestEntry) throws(KedgeError) -> [TreeStep] {
        var steps: [TreeStep] = []
        while let last = open.last, let path = last.path, !entry.path.isBelow(path) { steps += close() }
        let found = advance(to: RawPath(bytes: entry.path.name), &steps)
        let wanted = kind(entry)
        if let found, found.kind == wanted {
            steps.append(.keep(entry))
        } else if let found {
            steps.append(.replace(entry, found.kind))
        } else {
            steps.append(.make(entry))
        }
        switch entry.kind {
        case .file, .extraFile: break
        case .directory, .symbolicLink:
            // What a link is to lead to may be there whether or not the link is.
            let isThere = found?.kind == wanted || wanted == .symbolicLink
            open.append(Level(path: entry.path, entries: isThere ? try list(entry.path) : []))
        }
        return steps
    }

    /// What is left to be done after the last entry.
    package mutating func finish() -> [TreeStep] {
        var steps: [TreeStep] = []
        while !open.isEmpty { steps += close() }
        return steps
    }

    /// Leaves the innermost directory: what was not reached there is not in the backup.
    private mutating func close() -> [TreeStep] {
        let level = open.removeLast()
        return level.entries[level.next...].map { .remove(TreeMerge.join(level.path, $0.name), $0.kind) }
    }

    /// Passes what lies before `name` in the innermost directory, and returns what has that name.
    private mutating func advance(to name: RawPath, _ steps: inout [TreeStep]) -> DirectoryEntry? {
        let index = open.count - 1
        while open[index].next < open[index].entries.count {
            let entry = open[index].entries[open[index].next]
            if name < entry.name { return nil }
            open[index].next += 1
            if entry.name == name { return entry }
            steps.append(.remove(TreeMerge.join(open[index].path, entry.name), entry.kind))
        }
        return nil
    }

    private static func join(_ directory: ManifestPath?, _ name: RawPath) -> ManifestPath {
        guard let directory else { return ManifestPath(bytes: name.bytes) }
        return ManifestPath(bytes: directory.bytes + [0x2F] + name.bytes)
    }
}
