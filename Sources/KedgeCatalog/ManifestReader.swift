// The entries of a manifest, streamed part by part.
//
// Beyond what each part's decoder checks: parts follow each other in path order, each has the checksum and the number
// of entries that the root says, and it begins with the path that the root says. After the last entry, all of them
// together are what the root says: as many, as large, and with their data in the packs that it lists, which is all that
// keeps these packs from being expired.

import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// Reads a manifest's entries in path order. Memory is bounded by the bytes of one part and one entry: paths that share
/// their beginnings make entries many times larger than the part that they come from.
package struct ManifestReader: ~Copyable {
    private let root: ManifestRoot
    private let reader: PackReader
    private var nextPart = 0
    /// The present part; `decoder` reads from its memory.
    private var bytes = FrameBuffer()
    private var decoder: ManifestPartDecoder?
    /// Entries of the present part that are still to come.
    private var remaining: UInt64 = 0
    private var isFirstOfPart = false
    private var lastPath: ManifestPath?
    private var tally = ManifestTally()

    /// A reader of the manifest with this root, whose parts `reader` fetches.
    package init(_ root: ManifestRoot, reader: PackReader) {
        self.root = root
        self.reader = reader
    }

    /// The next entry, nil after the last. Throws `damaged`, `unsafe-path` and what reading throws.
    package mutating func next() throws(KedgeError) -> ManifestEntry? {
        while true {
            if let entry = try decoder?.next() {
                try check(entry)
                tally.add(entry)
                return entry
            }
            guard remaining == 0 else { throw otherEntries() }
            guard nextPart < root.parts.count else {
                try compareTally()
                return nil
            }
            try readPart()
        }
    }

    /// Holds an entry of the present part against what the root says of the part, and against the part before.
    private mutating func check(_ entry: ManifestEntry) throws(KedgeError) {
        guard remaining > 0 else { throw otherEntries() }
        if isFirstOfPart {
            guard entry.path == root.parts[nextPart - 1].first else { throw otherEntries() }
            if let lastPath, !(lastPath < entry.path) {
                throw damaged(what, "It begins with \"\(entry.path)\", which belongs before \"\(lastPath)\".")
            }
        }
        isFirstOfPart = false
        remaining -= 1
        if remaining == 0 { lastPath = entry.path }
    }

    private func otherEntries() -> KedgeError {
        damaged(what, "It does not hold the entries that the manifest's root says.")
    }

    /// The present part, as errors call it.
    private var what: String { "part \(nextPart - 1) of the manifest of backup \"\(root.label)\"" }

    private mutating func readPart() throws(KedgeError) {
        let part = root.parts[nextPart]
        nextPart += 1
        decoder = nil
        bytes.removeAll()
        bytes.reserve(Int(part.length))
        try reader.read(part.pack, frame: part.frame, offset: part.offset, length: part.length) { piece in
            bytes.append(piece)
        }
        guard ContentHash(of: bytes.bytes) == part.checksum else {
            throw damaged(what, "Its checksum is not the one that the manifest's root gives.")
        }
        // The buffer is not touched while the decoder is in use.
        decoder = try ManifestPartDecoder(bytes.bytes, what: what)
        (remaining, isFirstOfPart) = (part.entries, true)
    }

    private func compareTally() throws(KedgeError) {
        let what = "the manifest of backup \"\(root.label)\""
        guard
            (tally.files, tally.directories, tally.links, tally.bytes)
                == (root.files, root.directories, root.links, root.bytes)
        else {
            throw damaged(
                what,
                "It has \(tally.files) files of \(tally.bytes) bytes, \(tally.directories) directories and "
                    + "\(tally.links) links; its root says \(root.files) of \(root.bytes), "
                    + "\(root.directories) and \(root.links).")
        }
        var liveBytes = tally.liveBytes
        for part in root.parts { liveBytes[part.pack, default: 0] &+= part.length }
        guard liveBytes == Dictionary(root.packs.map { ($0.id, $0.liveBytes) }, uniquingKeysWith: max) else {
            throw damaged(what, "The packs that its root lists are not those that its entries refer to.")
        }
    }

    private func damaged(_ what: String, _ detail: String) -> KedgeError {
        KedgeError(
            .damaged, "cannot read \(what)", detail: detail,
            hint: "Restore another backup, or this one from another repository.")
    }
}

/// What a manifest's entries add up to.
private struct ManifestTally {
    private(set) var files: UInt64 = 0
    private(set) var directories: UInt64 = 0
    private(set) var links: UInt64 = 0
    private(set) var bytes: UInt64 = 0
    private(set) var liveBytes: [RandomID: UInt64] = [:]

    mutating func add(_ entry: ManifestEntry) {
        switch entry.kind {
        case .file(let content), .extraFile(let content):
            files += 1
            // Sums that wrap around do not fit the root's numbers, which a survey of the entries holds them against.
            bytes &+= content.size
            for extent in content.extents {
                if case .pack(let pack, _, _) = extent.source { liveBytes[pack, default: 0] &+= extent.length }
            }
        case .directory: directories += 1
        case .symbolicLink: links += 1
        }
    }
}
