// The entries of a manifest, streamed part by part.
//
// Beyond what each part's decoder checks: parts follow each other in path order, each has the checksum and the number of
// entries that the root says, and it begins with the path that the root says.

import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// Reads a manifest's entries in path order. Memory is bounded by one part.
package struct ManifestReader: ~Copyable {
    private let root: ManifestRoot
    private let reader: PackReader
    private var nextPart = 0
    private var entries: ArraySlice<ManifestEntry> = []
    private var lastPath: ManifestPath?

    /// A reader of the manifest with this root, whose parts `reader` fetches.
    package init(_ root: ManifestRoot, reader: PackReader) {
        self.root = root
        self.reader = reader
    }

    /// The next entry, nil after the last. Throws `damaged`, `unsafe-path` and what reading throws.
    package mutating func next() throws(KedgeError) -> ManifestEntry? {
        while entries.isEmpty {
            guard nextPart < root.parts.count else { return nil }
            try readPart()
        }
        return entries.popFirst()
    }

    private mutating func readPart() throws(KedgeError) {
        let part = root.parts[nextPart]
        let what = "part \(nextPart) of the manifest of backup \"\(root.label)\""
        nextPart += 1
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Int(part.length))
        try reader.read(part.pack, frame: part.frame, offset: part.offset, length: part.length) { piece in
            bytes.append(contentsOf: piece)
        }
        guard ContentHash(of: bytes) == part.checksum else {
            throw damaged(what, "Its checksum is not the one that the manifest's root gives.")
        }
        var decoded: [ManifestEntry] = []
        try bytes.withBytes { (buffer) throws(KedgeError) in
            var decoder = try ManifestPartDecoder(buffer, what: what)
            while let entry = try decoder.next() { decoded.append(entry) }
        }
        guard UInt64(decoded.count) == part.entries, decoded.first?.path == part.first else {
            throw damaged(what, "It does not hold the entries that the manifest's root says.")
        }
        if let lastPath, let first = decoded.first, !(lastPath < first.path) {
            throw damaged(what, "It begins with \"\(first.path)\", which belongs before \"\(lastPath)\".")
        }
        lastPath = decoded.last?.path ?? lastPath
        entries = decoded[...]
    }

    private func damaged(_ what: String, _ detail: String) -> KedgeError {
        KedgeError(
            .damaged, "cannot read \(what)", detail: detail,
            hint: "Restore another backup, or this one from another repository.")
    }
}
